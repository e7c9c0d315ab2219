"""What a node keeps of remote shards on its disk, for all processes on it: whole pieces; those used last stay.

A piece ends with checksums of its blocks, and what is read is compared with them: a bit that flips on the disk would be
another image for as long as the piece is kept. The folder is $SELFSUP_CACHE, or one among the node's temporary files
($TMPDIR). It may be removed at any time.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from zlib import crc32

from selfsup.mlflow_store import folder
from selfsup.whole import ABANDONED, SUFFIX, part_of

logger = logging.getLogger(__name__)
Spans = Sequence[tuple[int, int]]  # bytes [start, stop) of a piece

KEPT = 0.9  # of the limit, when room has been made
BLOCK, SUM = 2**16, 4  # bytes: of what has a checksum of its own, and of that
LOCKS = 1024  # files; of two pieces that share one, the second waits for the first


def node_folder() -> Path:
    """Raises SpecError where SELFSUP_CACHE is no folder."""
    return folder("SELFSUP_CACHE", f"{tempfile.gettempdir()}/selfsup-cache-{os.getuid()}")


class Cache:
    """At most `limit` bytes of pieces under a folder. Safe for threads, for processes, and for their sudden death."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root, self._limit, self._works = root, limit, True

    def read(self, name: str, size: int, spans: Spans, fetch: Callable[[], bytes]) -> list[bytes]:
        """Parts of the `size` bytes called `name`. Of several that miss them at the same time, one fetches."""
        path = self._root / "pieces" / name
        if (found := _read(path, size, spans)) is not None:
            return found
        with self._alone(f"{crc32(name.encode()) % LOCKS:04d}"):
            if (found := _read(path, size, spans)) is not None:
                return found
            data = fetch()
            if len(data) < self._limit * KEPT:
                self._keep(path, data + _sums(data))
        return [data[start:stop] for start, stop in spans]

    def _keep(self, path: Path, data: bytes) -> None:
        """Whole or not at all; older pieces make room."""
        part = part_of(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            with self._alone("ledger") as ledger:
                if ledger is not None:
                    self._book(ledger, len(data))
                    part.replace(path)
        except OSError as error:
            self._complain(error)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _book(self, ledger: FileIO, size: int) -> None:
        """Note that `size` bytes come in, once there is room for them."""
        told = ledger.read()
        held = int(told) if told else self._limit  # nobody has counted yet: who makes room does
        if held + size > self._limit:
            held = self._make_room(int(KEPT * self._limit) - size)
        ledger.seek(0)
        ledger.write(b"%020d" % (held + size))  # in place: to truncate a file first makes some file systems wait

    def _make_room(self, goal: int) -> int:
        """Remove what was used longest ago until no more than `goal` bytes are left; how many are."""
        found = sorted(_files(str(self._root / "pieces")))
        held = sum(size for _, size, _ in found)
        for _, size, path in found:
            if held <= goal:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (a hundred thousand of them)
            held -= size
        return held

    @contextmanager
    def _alone(self, name: str) -> Iterator[FileIO | None]:
        """Nobody else on this node is inside a block of this name, which holds its file, unless there can be none.

        A process that dies in it leaves it.
        """
        path = self._root / "locks" / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except OSError as error:
            self._complain(error)
            yield None
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    def _complain(self, error: OSError) -> None:
        if self._works:
            logger.warning("%s: what is fetched cannot be kept: %s", self._root, error)
        self._works = False


def _read(path: Path, size: int, spans: Spans) -> list[bytes] | None:
    """None where it is not there as it was kept."""
    try:
        with path.open("rb", buffering=0) as file:
            sums = _tail(file.fileno(), size)
            found = [_span(file.fileno(), size, sums, *span) for span in spans]
    except (OSError, EOFError):
        return None
    except ValueError as error:
        logger.warning("%s: %s; fetching it again", path, error)
        return None
    with suppress(FileNotFoundError):
        os.utime(path)
    return found


def _tail(file: int, size: int) -> bytes:
    """The checksums behind `size` bytes."""
    length = SUM * -(-size // BLOCK)
    if os.fstat(file).st_size != size + length:  # a crash of the machine can leave it so
        raise EOFError
    return os.pread(file, length, size)


def _span(file: int, size: int, sums: bytes, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of the first `size`, with the rest of their blocks compared with the checksums."""
    first, last = start // BLOCK, -(-stop // BLOCK)
    data = os.pread(file, min(last * BLOCK, size) - first * BLOCK, first * BLOCK)
    if _sums(data) != sums[SUM * first : SUM * last]:
        raise ValueError("not as it was kept")
    return data[start - first * BLOCK : stop - first * BLOCK]


def _sums(data: bytes) -> bytes:
    blocks = (memoryview(data)[start : start + BLOCK] for start in range(0, len(data), BLOCK))
    return b"".join(crc32(block).to_bytes(SUM, "little") for block in blocks)


def _files(folder: str) -> Iterator[tuple[float, int, str]]:
    """Last use, size and path of each piece, and of each part that was abandoned."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files(entry.path)
            continue
        with suppress(FileNotFoundError):  # another process's part becomes a piece
            told = entry.stat()
            if not entry.name.endswith(SUFFIX) or told.st_mtime < time.time() - ABANDONED:
                yield told.st_mtime, told.st_size, entry.path
