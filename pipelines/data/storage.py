"""Files by path or URL: local ones, s3:// and gs:// through pyarrow, http(s):// and other schemes through fsspec.

Credentials and endpoints of object stores come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL
...); settings that are no secret may stand in the URL:
s3://bucket/folder?endpoint_override=localhost:9000&scheme=http&region=eu-west-1.
Requests that fail for a transient reason are retried for about a minute.
"""

import logging
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyarrow import fs

from selfsup.errors import DataError
from selfsup.pipelines.data import urls
from selfsup.pipelines.data.urls import is_remote, join
from selfsup.redact import REMEDY, has_secret, redacted
from selfsup.whole import sweep, whole

logger = logging.getLogger(__name__)
T = TypeVar("T")
RangeReader = Callable[[int, int], bytes]  # bytes [start, stop) of one file

RETRY_DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds, each randomized by half
REQUEST_BYTES = 2**26  # of one read
TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)  # HTTP
PERMANENT = re.compile(r"AWS Error (ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_|SIGNATURE_|UNRECOGNIZED_CLIENT|MISSING_)")
_jitter = random.SystemRandom()  # independent of the seeds of training


class PermanentError(OSError):
    """A failure that a retry would only repeat."""


@dataclass(frozen=True)
class File:
    """An open file for random access; safe for threads."""

    url: str
    size: int
    fetch: RangeReader

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes [start, stop). Raises DataError as `open_file` does."""
        end = self.size if stop is None else stop
        parts = [self._range(first, min(first + REQUEST_BYTES, end)) for first in range(start, end, REQUEST_BYTES)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _range(self, start: int, stop: int) -> bytes:
        data = _request(self.url, "put it back", partial(self.fetch, start, stop))
        if len(data) != stop - start:
            raise DataError(
                f"{self.url}: got {len(data)} bytes for the range {start} to {stop}: the file is truncated, or its "
                "server ignores ranges"
            )
        return data


class _Folder(ABC):
    """A folder on one kind of storage. Each method makes one request and raises OSError where it fails."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of files, and of folders."""

    @abstractmethod
    def open_file(self, name: str) -> tuple[int, RangeReader]:
        """Return the size of a file, and its reader."""

    @abstractmethod
    def write(self, name: str, blocks: Iterable[bytes]) -> None: ...

    @abstractmethod
    def remove(self, name: str) -> None: ...


class _ArrowFolder(_Folder):
    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        super().__init__(path)
        self._fs = filesystem

    def names(self) -> tuple[list[str], list[str]]:
        with self._missing_as_not_found(self.path):
            entries = self._fs.get_file_info(fs.FileSelector(self.path))
        folders = [info.base_name for info in entries if info.type == fs.FileType.Directory]
        return [info.base_name for info in entries if info.is_file], folders

    def open_file(self, name: str) -> tuple[int, RangeReader]:
        path = f"{self.path}/{name}"
        file = self._fs.open_input_file(path)

        def fetch(start: int, stop: int) -> bytes:
            with self._missing_as_not_found(path):
                return bytes(file.read_at(stop - start, start))

        return file.size(), fetch

    @contextmanager
    def _missing_as_not_found(self, path: str) -> Iterator[None]:
        """Raise FileNotFoundError where pyarrow has no error code for it.

        That is an S3 object removed since it was opened, and an empty folder of GCS.
        """
        try:
            yield
        except OSError as error:
            known = error.errno is not None or PERMANENT.search(str(error))
            if not known and self._fs.get_file_info(path).type == fs.FileType.NotFound:
                raise FileNotFoundError(path) from error
            raise

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file; an object store shows it once it is complete."""
        with self._fs.open_output_stream(f"{self.path}/{name}") as file:
            for block in blocks:
                file.write(block)

    def remove(self, name: str) -> None:
        self._fs.delete_file(f"{self.path}/{name}")


class _LocalFolder(_ArrowFolder):
    def __init__(self, path: str) -> None:
        super().__init__(fs.LocalFileSystem(), path)
        self._swept = False

    def open_file(self, name: str) -> tuple[int, RangeReader]:
        """Return size and reader. Raises PermanentError for a pipe, whose open would block forever."""
        if Path(self.path, name).is_fifo():
            raise PermanentError("a pipe, not a file")
        return super().open_file(name)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            sweep(folder)
            self._swept = True
        with whole(folder / name) as part:
            super().write(part.name, blocks)


class _FsspecFolder(_Folder):
    def __init__(self, filesystem: Any, path: str) -> None:
        super().__init__(path)
        self._fs = filesystem

    def names(self) -> tuple[list[str], list[str]]:
        listing = self._call(self._fs.ls, self.path, detail=True)
        entries = [(entry["name"].rstrip("/"), entry["type"]) for entry in listing]
        children = [(name.rpartition("/")[2], kind) for name, kind in entries if name != self.path]
        files, folders = ([name for name, kind in children if kind == wanted] for wanted in ("file", "directory"))
        return files, folders

    def open_file(self, name: str) -> tuple[int, RangeReader]:
        path = f"{self.path}/{name}"
        size = self._call(self._fs.info, path)["size"]
        if size is None:
            raise PermanentError("the server does not report its size")
        return int(size), lambda start, stop: self._call(self._fs.cat_file, path, start=start, end=stop)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        self._call(self._fs.pipe_file, f"{self.path}/{name}", b"".join(blocks))

    def remove(self, name: str) -> None:
        self._call(self._fs.rm_file, f"{self.path}/{name}")

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except OSError:
            raise
        except Exception as error:  # every fsspec implementation raises its own types
            status = getattr(error, "status", None)  # HTTP
            permanent = isinstance(error, NotImplementedError) or (status and status not in TRANSIENT_STATUS)
            raise (PermanentError if permanent else OSError)(f"{type(error).__name__}: {error}") from error


def list_files(folder: str, *, suffix: str, must_exist: bool = True) -> list[str]:
    """Return the sorted names of files directly in a folder."""
    return [name for name in list_folder(folder, must_exist=must_exist)[0] if name.endswith(suffix)]


def list_folder(folder: str, *, must_exist: bool = True) -> tuple[list[str], list[str]]:
    """Return the sorted names of files and of folders directly in a folder.

    must_exist: a missing folder raises DataError; else it counts as empty.
    """
    try:
        files, folders = _with_retries(folder, _folder(folder).names)
    except FileNotFoundError as error:
        if must_exist:
            raise DataError(f"{folder}: not a folder that can be listed: {error}") from error
        return [], []
    except OSError as error:
        raise DataError(f"{folder}: not a folder that can be listed: {error}") from error
    return sorted(files), sorted(folders)


def open_file(folder: str, name: str, *, remedy: str) -> File:
    """Open a file for reading.

    Raises DataError where it cannot be reached, or is missing: then with FileNotFoundError as cause, and the remedy.
    """
    url = join(folder, name)
    size, fetch = _request(url, remedy, partial(_folder(folder).open_file, name))
    return File(url, size, fetch)


def read(folder: str, name: str, *, remedy: str) -> bytes:
    return open_file(folder, name, remedy=remedy).read()


def write(folder: str, name: str, data: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Write a file atomically. data: its bytes, or a function that yields them in blocks, called again on a retry."""
    blocks = data if callable(data) else partial(_single_block, data)
    try:
        _with_retries(join(folder, name), lambda: _folder(folder).write(name, blocks()))
    except OSError as error:
        raise DataError(f"{join(folder, name)}: cannot be written: {error}") from error


def remove(folder: str, name: str) -> None:
    """Remove a file if it exists."""
    try:
        _with_retries(join(folder, name), partial(_folder(folder).remove, name))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(f"{join(folder, name)}: cannot be removed: {error}") from error


def _single_block(data: bytes) -> Iterable[bytes]:
    return (data,)


def _request(url: str, remedy: str, call: Callable[[], T]) -> T:
    """Return the answer to a read request. Raises DataError for any OSError that retries do not cure."""
    try:
        return _with_retries(url, call)
    except FileNotFoundError as error:
        raise DataError(f"{url}: missing; {remedy}") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read: {error}") from error


def _with_retries(url: str, call: Callable[[], T]) -> T:
    for delay in RETRY_DELAYS if is_remote(url) else ():
        try:
            return call()
        except (FileNotFoundError, PermissionError, PermanentError):
            raise
        except OSError as error:
            if PERMANENT.search(str(error)):
                raise
            logger.warning("%s: %s; retrying in about %g s", url, redacted(str(error)), delay)
            time.sleep(delay * _jitter.uniform(0.5, 1.5))
    return call()


@lru_cache(maxsize=16)  # finding the region of a bucket is a request
def _folder(url: str) -> _Folder:
    if has_secret(url):
        raise DataError(f"{url}: {REMEDY}")
    scheme = urlsplit(url).scheme if "://" in url else "file"
    if scheme == "file":
        return _LocalFolder(urls.absolute(url))
    try:
        if scheme == "s3" or scheme in urls.ARROW_SCHEMES:
            return _ArrowFolder(*urls.arrow_filesystem(url))
        return _FsspecFolder(*urls.fsspec_filesystem(url))
    except (ValueError, ImportError, OSError) as error:
        raise DataError(f"{url}: not a path or URL that can be read: {error}") from error
