"""A local log of the metrics of a running stage, so that training steps never wait for a network.

A line of JSON per record, `{"step", "time", "values"}`, and per commit, `{"commit"}`. Records before a commit are
final; those after the last commit are of steps that no checkpoint holds, and a restored run computes them again.

A line ends with a checksum, since a bit that flips on the disk would change a number. A damaged line is skipped with a
warning; an incomplete last line, as a kill leaves it, is ignored.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from selfsup.errors import TrackError
from selfsup.metric_names import current_metrics

NAME = re.compile(r"(?!/)[\w/.\-: ]+(?<!/)", re.ASCII)  # names of metrics and parameters that MLflow accepts
TAIL_BYTES = 2**16  # from the end of a file, searched for its latest record
SUM = "sum"  # key of the checksum over the JSON without it; lines of older versions have none
logger = logging.getLogger(__name__)


class Record(NamedTuple):
    """Metrics of a step. step: optimizer steps done. time: of the record, in milliseconds since 1970."""

    step: int
    time: int
    values: Mapping[str, float]

    def finite(self) -> dict[str, float]:
        """Return the finite values, and the number of others as `nonfinite`: MLflow would store infinity as 1.8e308."""
        finite = {name: value for name, value in self.values.items() if math.isfinite(value)}
        nonfinite = len(self.values) - len(finite)
        return finite | ({"nonfinite": nonfinite} if nonfinite else {})


class Commit(NamedTuple):
    """A mark that all records before it are final. step: of the checkpoint."""

    step: int


class MetricsLog:
    """The writer of a log, used by one process (rank 0); any number of processes read it.

    Opening an existing file drops everything after the last commit, except records of steps up to `restored`, the step
    of the checkpoint that training resumes from: those will not be computed again.
    """

    def __init__(self, path: Path, *, restored: int = 0) -> None:
        self._path = path
        self._last_step = 0
        size = 0
        step = 0
        for end, entry in _entries(path):
            step = max(step, entry.step) if isinstance(entry, Record) else step
            if isinstance(entry, Commit) or entry.step <= restored:
                size, self._last_step = end, step
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(size)

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step, unless the file already had that step when it was opened.

        Raises TrackError for an invalid name or a failing disk.
        """
        if step <= self._last_step:
            return
        check_names(values)
        now = time.time_ns() // 1_000_000
        self._write({"step": step, "time": now, "values": {name: float(value) for name, value in values.items()}})

    def commit(self, step: int) -> None:
        """Mark all records so far as final, once the checkpoint of `step` is written."""
        self._write({"commit": step}, sync=True)

    def _write(self, entry: Mapping[str, object], *, sync: bool = False) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_text({**entry, SUM: _sum(entry)}) + b"\n")
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise TrackError(f"{self._path}: cannot record metrics: {error.strerror}") from error


def check_names(names: Mapping[str, object]) -> None:
    """Raise TrackError for a name that MLflow would reject later, when it is sent."""
    for name in names:
        if not NAME.fullmatch(name) or any(part in ("", ".", "..") for part in name.split("/")):
            raise TrackError(
                f"{name!r} cannot name a metric: use letters, digits, spaces and / : . - _ as in eval/knn/top1"
            )


def records(path: Path, *, committed: bool = True) -> Iterator[Record]:
    """Yield the records of a log in order; with committed=False, also those of steps after the last checkpoint."""
    entries = committed_records(path) if committed else ((entry, end) for end, entry in _entries(path))
    return (entry for entry, _ in entries if isinstance(entry, Record))


def committed_records(path: Path, *, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield each record from byte `start` on that a commit follows, and the offset of its end."""
    pending: list[tuple[Record, int]] = []
    for end, entry in _entries(path, start=start):
        if isinstance(entry, Record):
            pending.append((entry, end))
        else:
            yield from pending
            pending = []


def sent_bytes(note: Path, run_id: str, path: Path) -> int:
    """Return how many bytes of a log have reached a run; 0 where the note is missing, damaged or another run's."""
    try:
        content = json.loads(note.read_text())
        return int(content["sent"]) if content["run"] == run_id and content["sent"] <= path.stat().st_size else 0
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return 0


def tail(path: Path) -> Record | None:
    """Return the latest record, committed or not; None while there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().splitlines(keepends=True)
    latest = (entry for line in reversed(lines) if isinstance(entry := _parse(line), Record))
    return next(latest, None)


def _entries(path: Path, *, start: int = 0) -> Iterator[tuple[int, Record | Commit]]:
    """Yield each valid entry and the offset of its end."""
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
                _warn_once(path, end)


def _parse(line: bytes) -> Record | Commit | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(entry, dict) or entry.pop(SUM, None) not in (None, _sum(entry)):
            return None
        if "commit" in entry:
            return Commit(int(entry["commit"]))
        values = {name: float(value) for name, value in entry["values"].items()}
        return Record(int(entry["step"]), int(entry["time"]), current_metrics(values))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _sum(entry: Mapping[str, object]) -> str:
    """Return the checksum of an entry; Python's JSON keeps the order of keys and all bits of a number."""
    return f"{crc32(_text(entry)):08x}"


def _text(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode()


@lru_cache(maxsize=1024)
def _warn_once(path: Path, end: int) -> None:
    logger.warning("%s: the line that ends at byte %d is damaged: its metrics are left out", path, end)
