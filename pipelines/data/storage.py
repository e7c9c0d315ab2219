"""Files by path or URL: local, s3:// and gs:// through pyarrow, http(s):// and all that fsspec knows through fsspec.

What an object store asks for comes from its environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL ...) or, but
for secrets, from the URL: s3://bucket/folder?endpoint_override=localhost:9000&scheme=http&region=eu-west-1.
A request that fails for a reason that may pass is made again, for about a minute.
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
from selfsup.pipelines.data.urls import is_remote, within
from selfsup.redact import REMEDY, redacted, secret
from selfsup.whole import sweep, whole

logger = logging.getLogger(__name__)
T = TypeVar("T")

WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each repetition, give or take a half
PART = 2**26  # bytes of one request
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP
FINAL = re.compile(r"AWS Error (ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_|SIGNATURE_|UNRECOGNIZED_CLIENT|MISSING_)")
_chance = random.SystemRandom()  # nobody's training is seeded by this


class Refused(OSError):  # noqa: N818 (what it is, not what went wrong)
    """To ask again would be answered the same."""


@dataclass(frozen=True)
class File:
    """A file that any number of threads may read anywhere in it."""

    url: str
    size: int
    fetch: Callable[[int, int], bytes]

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop). DataError as of `opened`."""
        end = self.size if stop is None else stop
        parts = [self._part(first, min(first + PART, end)) for first in range(start, end, PART)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, start: int, stop: int) -> bytes:
        data = _told(self.url, "put it back", partial(self.fetch, start, stop))
        if len(data) != stop - start:
            raise DataError(f"{self.url}: {len(data)} bytes came, not {start} to {stop}: cut, or ranges are ignored")
        return data


class _Folder(ABC):
    """A folder of one kind of storage. Each method is one request, and raises an OSError where it fails."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> tuple[list[str], list[str]]:
        """Files, and folders."""

    @abstractmethod
    def opened(self, name: str) -> tuple[int, Callable[[int, int], bytes]]:
        """Size, and what reads from one byte to another."""

    @abstractmethod
    def write(self, name: str, blocks: Iterable[bytes]) -> None: ...

    @abstractmethod
    def remove(self, name: str) -> None: ...


class _Arrow(_Folder):
    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        super().__init__(path)
        self._fs = filesystem

    def names(self) -> tuple[list[str], list[str]]:
        with self._plainly(self.path):
            found = self._fs.get_file_info(fs.FileSelector(self.path))
        folders = [info.base_name for info in found if info.type == fs.FileType.Directory]
        return [info.base_name for info in found if info.is_file], folders

    def opened(self, name: str) -> tuple[int, Callable[[int, int], bytes]]:
        path = f"{self.path}/{name}"
        file = self._fs.open_input_file(path)

        def fetch(start: int, stop: int) -> bytes:
            with self._plainly(path):
                return bytes(file.read_at(stop - start, start))

        return file.size(), fetch

    @contextmanager
    def _plainly(self, path: str) -> Iterator[None]:
        """S3 has no plain word for an object that is gone since it was opened, nor has gs for a folder without any."""
        try:
            yield
        except OSError as error:
            told = error.errno is not None or FINAL.search(str(error))
            if not told and self._fs.get_file_info(path).type == fs.FileType.NotFound:
                raise FileNotFoundError(path) from error
            raise

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """An object store shows an object when it is whole."""
        with self._fs.open_output_stream(f"{self.path}/{name}") as file:
            for block in blocks:
                file.write(block)

    def remove(self, name: str) -> None:
        self._fs.delete_file(f"{self.path}/{name}")


class _Local(_Arrow):
    def __init__(self, path: str) -> None:
        super().__init__(fs.LocalFileSystem(), path)
        self._swept = False

    def opened(self, name: str) -> tuple[int, Callable[[int, int], bytes]]:
        """A pipe would be waited on without end."""
        if Path(self.path, name).is_fifo():
            raise Refused("no file, but a pipe")
        return super().opened(name)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            sweep(folder)
            self._swept = True
        with whole(folder / name) as part:
            super().write(part.name, blocks)


class _Fsspec(_Folder):
    def __init__(self, filesystem: Any, path: str) -> None:
        super().__init__(path)
        self._fs = filesystem

    def names(self) -> tuple[list[str], list[str]]:
        found = [(each["name"].rstrip("/"), each["type"]) for each in self._ask(self._fs.ls, self.path, detail=True)]
        inside = [(name.rpartition("/")[2], kind) for name, kind in found if name != self.path]
        files, folders = ([name for name, kind in inside if kind == told] for told in ("file", "directory"))
        return files, folders

    def opened(self, name: str) -> tuple[int, Callable[[int, int], bytes]]:
        path = f"{self.path}/{name}"
        size = self._ask(self._fs.info, path)["size"]
        if size is None:
            raise Refused("the server does not tell its size")
        return int(size), lambda start, stop: self._ask(self._fs.cat_file, path, start=start, end=stop)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        self._ask(self._fs.pipe_file, f"{self.path}/{name}", b"".join(blocks))

    def remove(self, name: str) -> None:
        self._ask(self._fs.rm_file, f"{self.path}/{name}")

    def _ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except OSError:
            raise
        except Exception as error:  # every implementation has kinds of its own
            status = getattr(error, "status", None)  # of HTTP
            refused = isinstance(error, NotImplementedError) or (status and status not in PASSING)
            raise (Refused if refused else OSError)(f"{type(error).__name__}: {error}") from error


def names(folder: str, *, suffix: str, there: bool = True) -> list[str]:
    """Files directly in a folder, sorted. A folder that is not `there` for certain may hold none."""
    return [name for name in listed(folder, there=there)[0] if name.endswith(suffix)]


def listed(folder: str, *, there: bool = True) -> tuple[list[str], list[str]]:
    """Files and folders directly in a folder, each sorted; none if it need not be `there`."""
    try:
        files, folders = _patiently(folder, _folder(folder).names)
    except FileNotFoundError as error:
        if there:
            raise DataError(f"{folder}: not a folder that can be listed: {error}") from error
        return [], []
    except OSError as error:
        raise DataError(f"{folder}: not a folder that can be listed: {error}") from error
    return sorted(files), sorted(folders)


def opened(folder: str, name: str, *, remedy: str) -> File:
    """DataError where it is missing, because of a FileNotFoundError and with what to do, or cannot be reached."""
    url = within(folder, name)
    size, fetch = _told(url, remedy, partial(_folder(folder).opened, name))
    return File(url, size, fetch)


def read(folder: str, name: str, *, remedy: str) -> bytes:
    return opened(folder, name, remedy=remedy).read()


def write(folder: str, name: str, data: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Whole or not at all. `data` at once, or what gives it block by block, and again if it must be sent again."""
    blocks = data if callable(data) else partial(_one, data)
    try:
        _patiently(within(folder, name), lambda: _folder(folder).write(name, blocks()))
    except OSError as error:
        raise DataError(f"{within(folder, name)}: cannot be written: {error}") from error


def remove(folder: str, name: str) -> None:
    """If it is there."""
    try:
        _patiently(within(folder, name), partial(_folder(folder).remove, name))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(f"{within(folder, name)}: cannot be removed: {error}") from error


def _one(data: bytes) -> Iterable[bytes]:
    return (data,)


def _told(url: str, remedy: str, call: Callable[[], T]) -> T:
    try:
        return _patiently(url, call)
    except FileNotFoundError as error:
        raise DataError(f"{url}: missing; {remedy}") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read: {error}") from error


def _patiently(url: str, call: Callable[[], T]) -> T:
    for wait in WAITS if is_remote(url) else ():
        try:
            return call()
        except (FileNotFoundError, PermissionError, Refused):
            raise
        except OSError as error:
            if FINAL.search(str(error)):
                raise
            logger.warning("%s: %s; asking again in about %g s", url, redacted(str(error)), wait)
            time.sleep(wait * _chance.uniform(0.5, 1.5))
    return call()


@lru_cache(maxsize=16)  # finding a bucket's region asks the network
def _folder(url: str) -> _Folder:
    if secret(url):
        raise DataError(f"{url}: {REMEDY}")
    scheme = urlsplit(url).scheme if "://" in url else "file"
    if scheme == "file":
        return _Local(urls.absolute(url))
    try:
        if scheme == "s3" or scheme in urls.ARROW:
            return _Arrow(*urls.arrow(url))
        return _Fsspec(*urls.other(url))
    except (ValueError, ImportError, OSError) as error:
        raise DataError(f"{url}: not a path or URL that can be read: {error}") from error
