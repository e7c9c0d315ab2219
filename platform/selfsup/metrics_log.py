"""Numbers of a running stage in a local file: the training step never waits for a network, and nothing is lost with it.

One line of JSON a record, `{"step", "time", "values"}`, and one a commit, `{"commit"}`. A record before a commit is
final. One after the last commit is of a step that no checkpoint holds: a restored run computes it again.

A line ends with a checksum: a bit that flips on the disk would be another number. A damaged line is left out, which is
logged; half a line, as a kill leaves it, ends the file.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from selfsup.errors import TrackError

NAME = re.compile(r"(?!/)[\w/.\-: ]+(?<!/)", re.ASCII)  # what MLflow takes as the name of a metric or parameter
TAIL = 2**16  # bytes: how far from its end the latest record of a file is looked for
SUM = "sum"  # of a line: its checksum, of the JSON without it; lines of older code have none
log = logging.getLogger(__name__)


class Record(NamedTuple):
    """step: optimiser steps done. time: milliseconds since 1970, when it was appended."""

    step: int
    time: int
    values: Mapping[str, float]


class Commit(NamedTuple):
    """Everything before this line is final. step: that of the checkpoint."""

    step: int


class MetricsLog:
    """The writing end. One process writes (rank 0); any number read.

    Opening an existing file drops what came after the last commit, half a line included, except records of steps up to
    `restored`, the step of the checkpoint that training goes on from: those will not be computed again.
    """

    def __init__(self, path: Path, *, restored: int = 0) -> None:
        self._path = path
        self._held = 0
        kept = 0
        step = 0
        for end, entry in _entries(path):
            step = max(step, entry.step) if isinstance(entry, Record) else step
            if isinstance(entry, Commit) or entry.step <= restored:
                kept, self._held = end, step
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(kept)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step; a step that the file held when it was opened is ignored. TrackError: disk, name."""
        if step <= self._held:
            return
        check_names(values)
        now = time.time_ns() // 1_000_000
        self._write({"step": step, "time": now, "values": {name: float(value) for name, value in values.items()}})

    def commit(self, step: int) -> None:
        """Call once the checkpoint of `step` is safe: all records so far are final and may be sent."""
        self._write({"commit": step}, sync=True)

    def _write(self, entry: Mapping[str, object], *, sync: bool = False) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_text({**entry, SUM: _sum(entry)}) + b"\n")
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise TrackError(f"{self._path}: cannot record numbers: {error.strerror}") from error


def check_names(names: Mapping[str, object]) -> None:
    """Raise TrackError for a name that MLflow would refuse, where it is written rather than where it is sent."""
    for name in names:
        if not NAME.fullmatch(name) or any(part in ("", ".", "..") for part in name.split("/")):
            raise TrackError(
                f"{name!r} cannot name a number: use letters, digits, spaces and / : . - _ as in eval/knn/top1"
            )


def records(path: Path, *, committed: bool = True) -> Iterator[Record]:
    """The records of a spool in order; with committed=False, also those of steps that no checkpoint holds yet."""
    found = final(path) if committed else ((entry, end) for end, entry in _entries(path))
    return (entry for entry, _ in found if isinstance(entry, Record))


def final(path: Path, *, start: int = 0) -> Iterator[tuple[Record, int]]:
    """From byte `start`: each record that a commit follows, and the byte after it."""
    pending: list[tuple[Record, int]] = []
    for end, entry in _entries(path, start=start):
        if isinstance(entry, Record):
            pending.append((entry, end))
        else:
            yield from pending
            pending = []


def sent(note: Path, run_id: str, path: Path) -> int:
    """How many bytes of a spool have reached this run; 0 where the note is missing, torn or another run's."""
    try:
        found = json.loads(note.read_text())
        return int(found["sent"]) if found["run"] == run_id and found["sent"] <= path.stat().st_size else 0
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return 0


def tail(path: Path) -> Record | None:
    """The latest record, committed or not, for a line of progress; None while there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        lines = file.read().splitlines(keepends=True)
    found = (entry for line in reversed(lines) if isinstance(entry := _parse(line), Record))
    return next(found, None)


def _entries(path: Path, *, start: int = 0) -> Iterator[tuple[int, Record | Commit]]:
    """Each entry with the byte after it, up to a line that is not whole."""
    if not path.exists():
        return
    end = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            end += len(line)
            entry = _parse(line)
            if entry is not None:
                yield end, entry
            elif line.endswith(b"\n"):
                _complain(path, end)


def _parse(line: bytes) -> Record | Commit | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(entry, dict) or entry.pop(SUM, None) not in (None, _sum(entry)):
            return None
        if "commit" in entry:
            return Commit(int(entry["commit"]))
        values = {name: float(value) for name, value in entry["values"].items()}
        return Record(int(entry["step"]), int(entry["time"]), values)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _sum(entry: Mapping[str, object]) -> str:
    """Of an entry, as written or as read: JSON in Python keeps the order of names and every bit of a number."""
    return f"{crc32(_text(entry)):08x}"


def _text(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode()


@lru_cache(maxsize=1024)  # once
def _complain(path: Path, end: int) -> None:
    log.warning("%s: the line that ends at byte %d is damaged: its numbers are left out", path, end)
