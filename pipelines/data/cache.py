"""A disk cache of remote data, shared by all processes of a node; the pieces used least recently are evicted.

A piece ends with checksums of its blocks, which are verified on every read: a bit that flips on the disk would change
an image for as long as the piece is cached. The folder is $SELFSUP_CACHE, or one among the node's temporary files
($TMPDIR). It may be removed at any time.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from zlib import crc32

from selfsup.whole import ABANDONED, SUFFIX, part_of

logger = logging.getLogger(__name__)
Spans = Sequence[tuple[int, int]]  # bytes [start, stop) of a piece

EVICTION_GOAL = 0.9  # share of the limit that stays after an eviction
BLOCK, CHECKSUM_BYTES = 2**16, 4  # bytes of data per checksum, and of the checksum
LOCKS = 1024  # files; pieces that share one are fetched one after the other


class Cache:
    """A folder of at most `limit` bytes of pieces. Safe for threads, for processes, and when a process is killed."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root, self._limit, self._works = root, limit, True

    def read(self, name: str, size: int, spans: Spans, fetch: Callable[[], bytes]) -> list[bytes]:
        """Return spans of a piece of `size` bytes; of several readers that miss it at the same time, one fetches."""
        path = self._root / "pieces" / name
        if (parts := _read(path, size, spans)) is not None:
            return parts
        with self._lock(f"{crc32(name.encode()) % LOCKS:04d}"):
            if (parts := _read(path, size, spans)) is not None:
                return parts
            data = fetch()
            if len(data) < self._limit * EVICTION_GOAL:
                self._store(path, data + _sums(data))
        return [data[start:stop] for start, stop in spans]

    def _store(self, path: Path, data: bytes) -> None:
        """Write a piece atomically; evict others where there is no room."""
        part = part_of(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            with self._lock("ledger") as ledger:
                if ledger is not None:
                    self._account(ledger, len(data))
                    part.replace(path)
        except OSError as error:
            self._warn_once(error)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _account(self, ledger: FileIO, size: int) -> None:
        """Add `size` bytes to the total in the ledger, after an eviction where they exceed the limit."""
        text = ledger.read()
        total = int(text) if text else self._limit  # unknown at first: the eviction counts
        if total + size > self._limit:
            total = self._evict(int(EVICTION_GOAL * self._limit) - size)
        ledger.seek(0)
        ledger.write(b"%020d" % (total + size))  # in place: truncating first blocks on some file systems

    def _evict(self, goal: int) -> int:
        """Remove the least recently used pieces until at most `goal` bytes remain; return how many remain."""
        pieces = sorted(_files(str(self._root / "pieces")))
        total = sum(size for _, size, _ in pieces)
        for _, size, path in pieces:
            if total <= goal:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (a hundred thousand of them)
            total -= size
        return total

    @contextmanager
    def _lock(self, name: str) -> Iterator[FileIO | None]:
        """Hold a lock of the node and yield its file; without one (None) where the folder cannot be written.

        The lock of a process that dies is released.
        """
        path = self._root / "locks" / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except OSError as error:
            self._warn_once(error)
            yield None
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    def _warn_once(self, error: OSError) -> None:
        if self._works:
            logger.warning("%s: fetched data cannot be cached: %s", self._root, error)
        self._works = False


def _read(path: Path, size: int, spans: Spans) -> list[bytes] | None:
    """Return spans of a piece; None where it is missing or damaged."""
    try:
        with path.open("rb", buffering=0) as file:
            sums = _checksums(file.fileno(), size)
            parts = [_span(file.fileno(), size, sums, *span) for span in spans]
    except (OSError, EOFError):
        return None
    except ValueError as error:
        logger.warning("%s: %s; fetching it again", path, error)
        return None
    with suppress(FileNotFoundError):
        os.utime(path)
    return parts


def _checksums(file: int, size: int) -> bytes:
    """Read the checksums that follow `size` bytes of data."""
    length = CHECKSUM_BYTES * -(-size // BLOCK)
    if os.fstat(file).st_size != size + length:  # as after a crash of the machine
        raise EOFError
    return os.pread(file, length, size)


def _span(file: int, size: int, sums: bytes, start: int, stop: int) -> bytes:
    """Read bytes [start, stop) and verify the blocks that hold them. Raises ValueError where one is damaged."""
    first, last = start // BLOCK, -(-stop // BLOCK)
    data = os.pread(file, min(last * BLOCK, size) - first * BLOCK, first * BLOCK)
    if _sums(data) != sums[CHECKSUM_BYTES * first : CHECKSUM_BYTES * last]:
        raise ValueError("damaged on disk")
    return data[start - first * BLOCK : stop - first * BLOCK]


def _sums(data: bytes) -> bytes:
    blocks = (memoryview(data)[start : start + BLOCK] for start in range(0, len(data), BLOCK))
    return b"".join(crc32(block).to_bytes(CHECKSUM_BYTES, "little") for block in blocks)


def _files(folder: str) -> Iterator[tuple[float, int, str]]:
    """Yield last use, size and path of each piece and each abandoned partial file."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files(entry.path)
            continue
        with suppress(FileNotFoundError):  # another process has just completed it
            status = entry.stat()
            if not entry.name.endswith(SUFFIX) or status.st_mtime < time.time() - ABANDONED:
                yield status.st_mtime, status.st_size, entry.path
