"""Files by path or URL: local, s3:// and gs:// through pyarrow, http(s):// through fsspec."""

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from selfsup.errors import DataError


def place(url: str) -> tuple[fs.FileSystem, str]:
    """The file system to ask, and the path there."""
    if "://" in url:
        return _remote(url)
    return fs.LocalFileSystem(), str(Path(url).expanduser().absolute())


@lru_cache(maxsize=16)  # finding a bucket's region asks the network
def _remote(url: str) -> tuple[fs.FileSystem, str]:
    if url.startswith(("http://", "https://")):
        import fsspec  # type: ignore[import-untyped]

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("http"))), url.rstrip("/")
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except (ValueError, OSError) as error:
        raise DataError(f"{url}: not a path or URL that can be read: {error}") from error
    return filesystem, path.rstrip("/")


def absolute(url: str) -> str:
    """The same place, whatever directory a later process works in."""
    return url.rstrip("/") if "://" in url else place(url)[1]


def names(folder: str, *, suffix: str) -> list[str]:
    """Files directly in a folder, sorted."""
    filesystem, path = place(folder)
    try:
        found = filesystem.get_file_info(fs.FileSelector(path))
    except OSError as error:
        raise DataError(f"{folder}: not a folder that can be listed: {error}") from error
    return sorted(info.base_name for info in found if info.is_file and info.base_name.endswith(suffix))


def opened(folder: str, name: str, *, remedy: str) -> pa.NativeFile:
    """A file for reading anywhere in it. DataError with what to do where it is missing."""
    filesystem, path = place(folder)
    try:
        return filesystem.open_input_file(f"{path}/{name}")
    except FileNotFoundError as error:
        raise DataError(f"{folder}/{name}: missing; {remedy}") from error
    except OSError as error:
        raise DataError(f"{folder}/{name}: cannot be read: {error}") from error


def read(folder: str, name: str, *, remedy: str) -> pa.Buffer:
    with opened(folder, name, remedy=remedy) as file:
        return file.read_buffer()


def write(folder: str, name: str, data: bytes | pa.Buffer) -> None:
    """Whole or not at all."""
    filesystem, path = place(folder)
    filesystem.create_dir(path, recursive=True)
    with filesystem.open_output_stream(f"{path}/{name}.part") as file:
        file.write(data)
    filesystem.move(f"{path}/{name}.part", f"{path}/{name}")
