"""URLs and paths of folders: what they name, made absolute, and the filesystem behind each."""

import os
from os.path import expanduser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pyarrow import fs

from selfsup.errors import DataError

CONNECT, SILENCE = 5.0, 20.0  # seconds until a connection stands; without a byte on one
OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")  # that an s3:// URL may carry
ARROW = ("gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


def is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file://")


def absolute(url: str) -> str:
    """The same place, whatever directory a later process works in. A file:// URL becomes its path."""
    if url.startswith("file://"):
        path = _path(url)
        if "\0" in path:
            raise DataError(f"{url}: no path has NUL (%00) in it")
        return path
    return url.rstrip("/") if "://" in url else str(Path(expanduser(url)).absolute())  # noqa: PTH111 (Path's raises)


def _path(url: str) -> str:
    """Of a file:// URL, in which a space, # or % may stand as %20 or, if there is such a path, as it is."""
    plain = url.removeprefix("file://").removeprefix("localhost")
    if not plain.startswith("/"):
        raise DataError(f"{url}: a file:// URL has three slashes, file:///folder, and names no other machine")
    path = unquote(plain)
    return str(Path(plain if Path(plain).exists() and not Path(path).exists() else path))


def within(folder: str, name: str) -> str:
    """The address of a file, for people."""
    parts = urlsplit(folder, allow_fragments=False)
    remote = is_remote(folder) and parts.query
    return urlunsplit(parts._replace(path=f"{parts.path}/{name}")) if remote else f"{folder}/{name}"


def arrow(url: str) -> tuple[fs.FileSystem, str]:
    """-> pyarrow's filesystem of an s3:// or ARROW URL, and the path in it."""
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        return _s3(url)
    filesystem, path = fs.FileSystem.from_uri(_hasty(url) if scheme in ("gs", "gcs") else url)
    return filesystem, path.rstrip("/")


def _s3(url: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(url, allow_fragments=False)  # a key may have a # in it
    told = dict(parse_qsl(parts.query))
    if wrong := told.keys() - set(OPTIONS):
        raise ValueError(f"{', '.join(sorted(wrong))}: unknown option; there are {', '.join(OPTIONS)}")
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, endpoint = given.rpartition("://")
    endpoint = told.get("endpoint_override", endpoint)
    region = told.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    filesystem = fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=told.get("scheme") or scheme or None,
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(parts.netloc)),
        anonymous=told.get("anonymous") == "true",
        connect_timeout=CONNECT,
        request_timeout=SILENCE,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")


def _hasty(url: str) -> str:
    """Google's client repeats on its own, for a quarter of an hour if it is not told otherwise."""
    limit = f"retry_limit_seconds={SILENCE:g}"
    return url if "retry_limit_seconds" in url else f"{url}{'&' if '?' in url else '?'}{limit}"


def other(url: str) -> tuple[Any, str]:
    """-> fsspec's filesystem of any other URL, and the path in it."""
    import fsspec  # type: ignore[import-untyped]

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(sock_connect=CONNECT, sock_read=SILENCE)}
    filesystem, path = fsspec.url_to_fs(url, **options)
    return filesystem, str(path).rstrip("/")
