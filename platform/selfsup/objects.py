"""Objects on storage, by URL: s3://, gs:// and Azure's through obstore, any other scheme through fsspec.

Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS
...) or from the role of the machine; requests that fail for a transient reason are tried again for half a minute.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from selfsup.errors import SelfsupError, SpecError
from selfsup.failures import DISK_REMEDIES
from selfsup.redact import redacted

OBSTORE = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
OPTIONS = {"endpoint_override": "endpoint", "region": "region", "anonymous": "skip_signature", "scheme": ""}  # of S3
CONNECT_TIMEOUT, REQUEST_TIMEOUT = "5s", "60s"
RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=30)}


class StorageError(SelfsupError):
    """Storage that does not answer, or refuses."""


class ObjectInfo(NamedTuple):
    """An object. tag: changes with its content. time: at which it was written, in seconds since 1970; 0: unknown."""

    name: str
    size: int
    tag: str
    time: float


class ObjectStore(ABC):
    """The objects below a URL, by names such as `runs/a.json`. Every method raises StorageError where it fails."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield all objects in a folder, and in those below it; none where it is missing."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of an object. Raises FileNotFoundError."""

    @abstractmethod
    def write(self, name: str, data: bytes | Path) -> str:
        """Write an object, which is seen once it is complete; return its tag."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write an object that does not exist; return whether that was so, where storage can tell."""

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, those that there are."""

    def download(self, name: str, path: Path) -> None:
        """Write the content of an object to a file. Raises FileNotFoundError."""
        path.write_bytes(self.read(name))

    @contextmanager
    def _errors(self, name: str, written: bytes | Path | None = None) -> Iterator[None]:
        """Raise what a store raises as StorageError, but for a missing object that is read, or file that is written."""
        try:
            yield
        except Exception as error:  # every store raises its own types
            is_gone = written is None or (isinstance(written, Path) and not written.exists())
            if isinstance(error, FileNotFoundError) and is_gone:
                raise
            if isinstance(error, OSError) and error.errno in DISK_REMEDIES:
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise StorageError(f"{self.url}: {name}: {redacted(reason)}; the same command continues") from error


class _CloudStore(ObjectStore):
    """An object store of a cloud, whose conditional writes are atomic."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from obstore.store import from_url

        parts, config = urlsplit(url, allow_fragments=False), _s3_config(url)
        is_plain = config.get("endpoint", "").startswith("http://")
        options: Any = {"allow_http": is_plain, "connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
        connect: Any = from_url  # its types tell the clouds apart
        self._store: Any = connect(
            parts._replace(query="").geturl(),
            config=config or None,
            client_options=options,
            retry_config=RETRIES,
        )

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        with self._errors(folder), suppress(FileNotFoundError):
            for page in self._store.list(folder):
                for info in page:
                    tag = str(info["e_tag"] or info["version"])
                    yield ObjectInfo(info["path"], info["size"], tag, info["last_modified"].timestamp())

    def read(self, name: str) -> bytes:
        with self._errors(name):
            return bytes(self._store.get(name).bytes())

    def download(self, name: str, path: Path) -> None:
        with self._errors(name), path.open("wb") as file:
            for block in self._store.get(name).stream(min_chunk_size=2**23):
                file.write(block)

    def write(self, name: str, data: bytes | Path) -> str:
        with self._errors(name, data):
            answer = self._store.put(name, data)
            return str(answer["e_tag"] or answer["version"])

    def create(self, name: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError

        with self._errors(name, data):
            try:
                self._store.put(name, data, mode="create")
            except AlreadyExistsError:
                return self.read(name) == data  # a write of ours whose answer was lost
            return True

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with self._errors(name), suppress(FileNotFoundError):
                self._store.delete(name)


class _OtherStore(ObjectStore):
    """Files of a file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        import fsspec  # type: ignore[import-untyped]

        filesystem, root = fsspec.url_to_fs(url, use_listings_cache=False)
        self._fs: Any = filesystem
        self._root = str(root).rstrip("/")

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        with self._errors(folder), suppress(FileNotFoundError):
            for path, info in self._fs.find(self._path(folder), detail=True).items():
                marks = [info.get(key) for key in ("ETag", "etag", "generation", "mtime", "created")]
                name = path.removeprefix(self._root).lstrip("/")
                yield ObjectInfo(name, info["size"], str(marks), max(map(_seconds, marks[3:])))

    def read(self, name: str) -> bytes:
        with self._errors(name):
            return bytes(self._fs.cat_file(self._path(name)))

    def write(self, name: str, data: bytes | Path) -> str:
        with self._errors(name, data):
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(self._path(name), data if isinstance(data, bytes) else data.read_bytes())
            return next(iter(self.list(name))).tag

    def create(self, name: str, data: bytes) -> bool:
        with self._errors(name, data):
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            return True

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with self._errors(name), suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")


def open_store(url: str) -> ObjectStore:
    """Return the objects below a URL. Raises SpecError where nothing can read such a URL."""
    try:
        return _CloudStore(url) if urlsplit(url).scheme in OBSTORE else _OtherStore(url)
    except Exception as error:  # both raise types of their own
        reason = str(error).strip().partition("\n")[0]
        raise SpecError(f"SELFSUP_HOME: {redacted(url)}: not storage that can be read: {redacted(reason)}") from error


def _s3_config(url: str) -> Any:
    """Return what the query of an s3:// URL and the environment say, as obstore has it; empty for other clouds."""
    parts = urlsplit(url, allow_fragments=False)
    query = dict(parse_qsl(parts.query))
    if parts.scheme not in ("s3", "s3a"):
        if query or (parts.scheme == "gs" and parts.username):
            raise ValueError(
                f"options in a URL are those of s3:// alone; {parts.scheme}:// takes them from the environment"
            )
        return {}
    if unknown := query.keys() - OPTIONS.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: unknown option; the options are {', '.join(OPTIONS)}")
    config = {OPTIONS[name]: value for name, value in query.items() if OPTIONS[name]}
    variable = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if host := query.get("endpoint_override"):
        config["endpoint"] = f"{query.get('scheme', 'https')}://{host}"
    elif variable:
        config["endpoint"] = variable
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config.setdefault("region", region or ("us-east-1" if "endpoint" in config else _region(parts.netloc)))
    return config


def _seconds(time: Any) -> float:
    """Return a time as fsspec has it in seconds since 1970; 0 for none."""
    return float(time.timestamp() if hasattr(time, "timestamp") else time or 0.0)


def _region(bucket: str) -> str:
    from pyarrow import fs

    return str(fs.resolve_s3_region(bucket))
