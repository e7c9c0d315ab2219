"""Files of a home on object storage: notes, marks, private ones; and the index of what a node has seen of them."""

import fcntl
import json
import os
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selfsup.whole import SUFFIX, write

LOCK = "lock"  # in the folder of a stage
MARKS = ("manifest.json", "_digests.json", "done.json")  # published last, in this order
SEALED = (  # folders that count with their mark alone
    (re.compile(r"(.*/(?:checkpoint_\d+|features))/"), "_digests.json"),
    (re.compile(r"(data/[^/]+/[^/]+)/"), "manifest.json"),
)
NOTE_BYTES = 2**22
Entry = tuple[str, int, int]  # tag of an object; size and time of change of its file, in ns
Index = dict[str, Entry]
Wanted = Callable[[str, int], bool]  # of a name in a stage, or another folder, and a size


def everything(*_: object) -> bool:
    """Return True."""
    return True


def notes(name: str, size: int) -> bool:
    """Return whether a file is a note of a stage: all but checkpoints, features and weights."""
    return "/" not in name and not name.endswith(".safetensors") and size <= NOTE_BYTES


def inputs(name: str, _: int) -> bool:
    """Return whether a file is for other stages to read: all but what training keeps for itself."""
    return not name.startswith(("checkpoint_", "snapshots/"))


def unit_of(name: str) -> str:
    """Return the folder that an object is indexed with: a stage, or another of a home."""
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] in ("stages", "data", "reports") else parts[0]


def files_of(path: Path) -> list[Path]:
    """Return a file, or the files in a folder and those below it, while others may remove some."""
    return [path] if path.is_file() else [Path(folder, name) for folder, _, names in os.walk(path) for name in names]


def is_private(name: str, *, parts: bool) -> bool:
    """Return whether a file is of this node alone. parts: whether unfinished ones are for others, too."""
    last = name.rpartition("/")[2]
    is_scratch = "/snapshots/" in name and not name.endswith(".safetensors")
    is_part = any(piece.endswith(SUFFIX) for piece in name.split("/"))
    return last == LOCK or last.endswith((".sent", ".lock")) or is_scratch or (is_part and not parts)


def rank(name: str) -> int:
    """Return the place of a file in the order in which files are published."""
    last = name.rpartition("/")[2]
    return MARKS.index(last) + 1 if last in MARKS else 0


def is_whole(name: str, there: Container[str]) -> bool:
    """Return whether a file is in no folder that lacks its mark."""
    matches = [(pattern.match(name), mark) for pattern, mark in SEALED]
    return all(match is None or f"{match[1]}/{mark}" in there for match, mark in matches)


def stamp(file: Path) -> tuple[int, int]:
    """-> size, and time of change in ns"""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of those in a folder, while others may remove some."""
    total = 0
    for file in files_of(path):
        with suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def is_known(file: Path, entry: Entry | None) -> bool:
    """Return whether a file is as it was when it was published or fetched."""
    with suppress(FileNotFoundError):
        return entry is not None and stamp(file) == (entry[1], entry[2])
    return False


def is_busy(folder: Path) -> bool:
    """Return whether a process of this node holds the lock of a stage."""
    with suppress(FileNotFoundError), (folder / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_index(file: Path) -> Index:
    """Return what an index holds; nothing where it is missing or damaged."""
    try:
        return {name: (entry[0], entry[1], entry[2]) for name, entry in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return {}


@contextmanager
def indexed(file: Path, *, wait: bool = True) -> Iterator[Index]:
    """Yield an index, locked, and keep what changes in it.

    Raises BlockingIOError where another process has it, unless `wait`; else its time of change is that of its use.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        index = read_index(file)
        before = dict(index)
        try:
            yield index
        finally:
            if not index:
                file.unlink(missing_ok=True)
            elif index != before:
                write(file, json.dumps(index))
            elif wait:
                os.utime(file)
