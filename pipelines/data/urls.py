"""URLs and paths of folders: parsing, absolute forms, and the filesystem for each scheme."""

import os
from os.path import expanduser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pyarrow import fs

from selfsup.errors import DataError

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0  # seconds
OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")  # accepted in the query of an s3:// URL
ARROW_SCHEMES = ("gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


def is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file://")


def absolute(url: str) -> str:
    """Return a URL or path that does not depend on the working directory; a file:// URL becomes its path."""
    if url.startswith("file://"):
        path = _file_path(url)
        if "\0" in path:
            raise DataError(f"{url}: contains NUL (%00), which no path can; remove it")
        return path
    return url.rstrip("/") if "://" in url else str(Path(expanduser(url)).absolute())  # noqa: PTH111 (Path's raises)


def _file_path(url: str) -> str:
    """Return the path of a file:// URL; a space, # or % may be written as %20 or, if such a path exists, literally."""
    plain = url.removeprefix("file://").removeprefix("localhost")
    if not plain.startswith("/"):
        raise DataError(f"{url}: a file:// URL has three slashes, as in file:///folder, and names no other machine")
    path = unquote(plain)
    return str(Path(plain if Path(plain).exists() and not Path(path).exists() else path))


def join(folder: str, name: str) -> str:
    """Return the address of a file in a folder, for messages; the query of a remote URL stays at its end."""
    parts = urlsplit(folder, allow_fragments=False)
    has_query = is_remote(folder) and parts.query
    return urlunsplit(parts._replace(path=f"{parts.path}/{name}")) if has_query else f"{folder}/{name}"


def arrow_filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """Return pyarrow's filesystem for an s3:// URL or one of ARROW_SCHEMES, and the path in it."""
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        return _s3_filesystem(url)
    filesystem, path = fs.FileSystem.from_uri(_with_retry_limit(url) if scheme in ("gs", "gcs") else url)
    return filesystem, path.rstrip("/")


def _s3_filesystem(url: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(url, allow_fragments=False)  # a key may contain #
    options = dict(parse_qsl(parts.query))
    if unknown := options.keys() - set(OPTIONS):
        raise ValueError(f"{', '.join(sorted(unknown))}: unknown option; the options are {', '.join(OPTIONS)}")
    variable = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, endpoint = variable.rpartition("://")
    endpoint = options.get("endpoint_override", endpoint)
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    filesystem = fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=options.get("scheme") or scheme or None,
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(parts.netloc)),
        anonymous=options.get("anonymous") == "true",
        connect_timeout=CONNECT_TIMEOUT,
        request_timeout=READ_TIMEOUT,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")


def _with_retry_limit(url: str) -> str:
    """Return the URL with a retry limit: Google's client otherwise retries for a quarter of an hour."""
    limit = f"retry_limit_seconds={READ_TIMEOUT:g}"
    return url if "retry_limit_seconds" in url else f"{url}{'&' if '?' in url else '?'}{limit}"


def fsspec_filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's filesystem for any other URL, and the path in it."""
    import fsspec  # type: ignore[import-untyped]

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)}
    filesystem, path = fsspec.url_to_fs(url, **options)
    return filesystem, str(path).rstrip("/")
