"""Atomic writes of files and folders, safe for concurrent processes and sudden death.

Each writer fills a part file of its own, with a random name, and renames it at the end. A process that is killed leaves
its part file, which `sweep` removes later.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".part"
ABANDONED = 600  # seconds without a write after which a part file counts as left by a dead process


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, and rename it to `path` at the end of the block.

    If the block raises, `path` stays as it was and the part is removed. Data is flushed to the disk before the rename,
    so that a loss of power damages nothing.
    """
    part = part_of(path)
    try:
        yield part
        if part.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        for file in [part, *part.rglob("*")]:
            _flush(file)
        part.replace(path)
    except BaseException:
        remove(part)
        raise


def write(path: Path, data: bytes | str) -> None:
    """Write a file atomically."""
    with whole(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def part_of(path: Path) -> Path:
    """Return a path beside `path` that no other process uses, on any machine."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}{SUFFIX}")


def sweep(folder: Path) -> None:
    """Remove abandoned parts directly in a folder."""
    for part in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # its writer has just finished
            if part.stat().st_mtime < time.time() - ABANDONED:
                remove(part)


def remove(part: Path) -> None:
    """Remove a file or folder, ignoring errors."""
    with suppress(OSError):
        part.unlink()
    shutil.rmtree(part, ignore_errors=True)


def _flush(file: Path) -> None:
    if file.is_file():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
