"""Files and folders that appear whole or not at all, however many processes write them and whenever one dies.

Each writer has a part of its own, named by chance, which takes its place in one stroke. A process that is killed leaves
its part: `sweep` removes those that nobody has written to for a while.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".part"
ABANDONED = 600  # seconds without a write after which a part counts as left by a process that died


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the block a name to make a file or folder under, then put that in the place of `path`.

    What the block raises leaves `path` as it was and removes the part. Bytes are on the disk before they get the name,
    so that a loss of power tears nothing.
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
    with whole(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def part_of(path: Path) -> Path:
    """A name beside `path` that nobody else uses, on whatever machine."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}{SUFFIX}")


def sweep(folder: Path) -> None:
    """Remove the parts directly in a folder whose writers have died."""
    for part in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # its writer has just finished
            if part.stat().st_mtime < time.time() - ABANDONED:
                remove(part)


def remove(part: Path) -> None:
    """A file or a folder, if it can be."""
    with suppress(OSError):
        part.unlink()
    shutil.rmtree(part, ignore_errors=True)


def _flush(file: Path) -> None:
    if file.is_file():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
