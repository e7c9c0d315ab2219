"""Reads of samples from shards: few large reads of adjacent samples, or cached ranges of remote shards."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from selfsup.errors import DataError
from selfsup.modality import Data
from selfsup.pipelines.data import storage, tars, urls
from selfsup.pipelines.data.cache import Cache
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.rows import Table
from selfsup.sections import Missing

logger = logging.getLogger(__name__)

MAX_GAP, MAX_GAP_REMOTE = 2**15, 2**18  # bytes: reading over such a gap is cheaper than another request
MAX_READ = 2**24  # bytes, so that several reads go on at a time
DENSE = 0.8  # wanted share of a read from which samples are views of it instead of copies
MAX_OPEN, MAX_OPEN_REMOTE = 256, 4096  # shards; a remote one costs no file descriptor, but a request to reopen it


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading shards; the samples do not depend on them.

    cache: bytes of remote data that a node keeps on disk. samples_per_fetch: consecutive samples cached as one piece.
    missing: whether a missing or changed shard is an error, or its samples count as undecodable.
    """

    cache: int = 0
    samples_per_fetch: int = 1
    missing: Missing = "fail"


class ByteRange(NamedTuple):
    """Bytes [start, stop) of a shard that are fetched together and cached under a name."""

    name: str
    start: int
    stop: int


class ReadRequest(NamedTuple):
    """Samples of one shard that are read together. places: their positions in the batch asked for, sorted by start.

    piece: the cached range that holds them; None for a direct read.
    """

    shard: int
    places: Ints
    piece: ByteRange | None


def direct_reads(index: Ints, rows: Table, shard: Ints, max_gap: int) -> list[ReadRequest]:
    """(n,) sample numbers, their rows and shards -> reads that join samples up to `max_gap` bytes apart."""
    order = np.argsort(index, kind="stable")
    start = rows["start"][order]
    stop = start + rows["length"][order]
    apart = (np.diff(shard[order]) != 0) | (start[1:] - stop[:-1] > max_gap)
    run = np.concatenate([[0], np.cumsum(apart)])
    part = (stop - start[np.searchsorted(run, run)]) // MAX_READ
    groups = _split_after(order, apart | (np.diff(part) != 0))
    return [ReadRequest(int(shard[places[0]]), places, None) for places in groups]


def cached_reads(
    index: Ints, shard: Ints, *, rows: Callable[[Ints], Table], starts: Ints, samples: Ints, length: int, digest: str
) -> list[ReadRequest]:
    """(n,) sample numbers and their shards -> reads of cached pieces of `length` samples.

    starts, samples: (shards,) the first sample of each shard and the number it holds; no piece crosses shards.
    """
    order = np.argsort(index, kind="stable")
    number = index // length
    groups = _split_after(order, (np.diff(number[order]) != 0) | (np.diff(shard[order]) != 0))
    one = np.array([places[0] for places in groups], dtype=np.int64)
    home = shard[one]
    first = np.maximum(number[one] * length, starts[home])
    last = np.minimum((number[one] + 1) * length, starts[home] + samples[home]) - 1
    start, ending = rows(first)["start"], rows(last)
    stop = ending["start"] + ending["length"]
    pieces = zip(home.tolist(), groups, first.tolist(), last.tolist(), start.tolist(), stop.tolist(), strict=True)
    return [
        ReadRequest(number, places, ByteRange(f"{digest}/{a % 256:02x}/{a}-{b}", begin, end))
        for number, places, a, b, begin, end in pieces
    ]


def _split_after(order: Ints, boundary: np.ndarray) -> list[Ints]:
    return np.split(order, np.flatnonzero(boundary) + 1)


class ShardReader:
    """The shards of a data set; those used last stay open. Safe for threads.

    shards: name and size of each. skip: whether the samples of a missing or changed shard come empty.
    """

    def __init__(self, root: str, shards: pa.Table, *, cache: Cache | None, skip: bool, remedy: str) -> None:
        self._root, self._shards, self._cache, self._skip, self._remedy = root, shards, cache, skip, remedy
        self._file = lru_cache(maxsize=MAX_OPEN_REMOTE if urls.is_remote(root) else MAX_OPEN)(self._open)
        self._lost: set[int] = set()

    def fetch(self, request: ReadRequest, rows: Table) -> list[tuple[str, Data]]:
        """Return key and data of each row of a request.

        Raises DataError where the shard cannot be reached, or, unless `skip`, is missing or has changed.
        """
        shard = request.shard
        if shard not in self._lost:
            try:
                return [tars.parse_member(block) for block in self._blocks(shard, rows, request.piece)]
            except ValueError as error:
                url = urls.join(self._root, self._name(shard))
                problem = DataError(f"{url}: {error}: truncated or changed; fetch it again, or {self._remedy}")
                problem.__cause__ = error
            except DataError as error:
                problem = error
            if not self._skip or not isinstance(problem.__cause__, (FileNotFoundError, ValueError)):
                raise problem
            self._lost.add(shard)
            logger.warning("samples are replaced by others: %s", problem)
        return [(f"{self._name(shard)}@{start}", b"") for start in rows["start"].tolist()]

    def _blocks(self, shard: int, rows: Table, piece: ByteRange | None) -> Iterator[Data]:
        """Yield the bytes of each row, headers included."""
        starts, lengths = rows["start"].tolist(), rows["length"].tolist()
        if self._cache is None or piece is None:
            first, block = starts[0], self._file(shard).read(starts[0], starts[-1] + lengths[-1])
            data = memoryview(block) if sum(lengths) > DENSE * len(block) else block  # slices of bytes are copies
            for start, length in zip(starts, lengths, strict=True):
                yield data[start - first : start - first + length]
            return
        fetch = partial(self._read_piece, shard, piece)
        spans = [(start - piece.start, start - piece.start + n) for start, n in zip(starts, lengths, strict=True)]
        yield from self._cache.read(piece.name, piece.stop - piece.start, spans, fetch)

    def _read_piece(self, shard: int, piece: ByteRange) -> bytes:
        return self._file(shard).read(piece.start, piece.stop)

    def _open(self, shard: int) -> storage.File:
        size = self._shards["bytes"][shard].as_py()
        file = storage.open_file(self._root, self._name(shard), remedy=f"put it back, or {self._remedy}")
        if file.size != size:
            raise ValueError(f"{file.size} bytes, but {size} when it was indexed")
        return file

    def _name(self, shard: int) -> str:
        return str(self._shards["name"][shard])
