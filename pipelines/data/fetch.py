"""The bytes of samples: by few large reads from the shards, or by pieces of remote ones that the node keeps on disk."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from selfsup.errors import DataError
from selfsup.pipelines.data import storage, tars, urls
from selfsup.pipelines.data.cache import Cache
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.rows import Rows, Table
from selfsup.pipelines.modalities.decode import Data
from selfsup.sections import Missing

logger = logging.getLogger(__name__)

GAP, GAP_REMOTE = 2**15, 2**18  # bytes: reading over such a gap is cheaper than asking again
RUN = 2**24  # bytes of one read, so that several go on at a time
DENSE = 0.8  # share of a read that is wanted, from which on samples are views of it
OPEN, OPEN_REMOTE = 256, 4096  # shards; a remote one costs no file descriptor, but a request to open it again


@dataclass(frozen=True)
class Access:
    """How shards are read; what is read does not depend on it.

    cache: bytes of remote data that a node keeps on its disk. piece: consecutive samples fetched together to be kept.
    missing: whether a shard that vanished or changed is an error, or its samples count as undecodable.
    """

    cache: int = 0
    piece: int = 1
    missing: Missing = "fail"


class Piece(NamedTuple):
    """What is fetched together and kept: bytes [start, stop) of a shard."""

    name: str
    start: int
    stop: int


class Job(NamedTuple):
    """Samples of one shard that are read together. places: where they stand among those asked for, by start."""

    shard: int
    places: Ints
    piece: Piece | None


def runs(index: Ints, rows: Table, shard: Ints, gap: int) -> list[Job]:
    """(n,) sample numbers, their rows and shards -> those up to `gap` apart together, but no more than RUN bytes."""
    order = np.argsort(index, kind="stable")
    start = rows["start"][order]
    stop = start + rows["length"][order]
    apart = (np.diff(shard[order]) != 0) | (start[1:] - stop[:-1] > gap)
    run = np.concatenate([[0], np.cumsum(apart)])
    part = (stop - start[np.searchsorted(run, run)]) // RUN
    return [Job(int(shard[places[0]]), places, None) for places in _cut(order, apart | (np.diff(part) != 0))]


def pieces(index: Ints, shard: Ints, *, rows: Rows, starts: Ints, samples: Ints, length: int, digest: str) -> list[Job]:
    """(n,) sample numbers and their shards -> those of one piece of `length` samples together.

    starts, samples: (shards,) first sample of each shard, and how many it holds; no piece goes beyond one.
    """
    order = np.argsort(index, kind="stable")
    number = index // length
    groups = _cut(order, (np.diff(number[order]) != 0) | (np.diff(shard[order]) != 0))
    one = np.array([places[0] for places in groups], dtype=np.int64)
    home = shard[one]
    first = np.maximum(number[one] * length, starts[home])
    last = np.minimum((number[one] + 1) * length, starts[home] + samples[home]) - 1
    start, end = rows.take(first)["start"], rows.take(last)
    stop = end["start"] + end["length"]
    told = zip(home.tolist(), groups, first.tolist(), last.tolist(), start.tolist(), stop.tolist(), strict=True)
    return [Job(h, places, Piece(f"{digest}/{a % 256:02x}/{a}-{b}", s, e)) for h, places, a, b, s, e in told]


def _cut(order: Ints, after: np.ndarray) -> list[Ints]:
    return np.split(order, np.flatnonzero(after) + 1)


class Shards:
    """The shards of a data set, as many of them open as were asked for last. Safe for threads."""

    def __init__(self, root: str, told: pa.Table, *, cache: Cache | None, skip: bool, remedy: str) -> None:
        self._root, self._told, self._cache, self._skip, self._remedy = root, told, cache, skip, remedy
        self._file = lru_cache(maxsize=OPEN_REMOTE if urls.is_remote(root) else OPEN)(self._open)
        self._lost: set[int] = set()

    def fetch(self, job: Job, rows: Table) -> list[tuple[str, Data]]:
        """-> the key and the image of each row of the job.

        DataError where the shard cannot be reached, is missing, or is not the one that was indexed. If those that are
        missing or changed are to be skipped, their images are empty.
        """
        shard = job.shard
        if shard not in self._lost:
            try:
                return [tars.member(block) for block in self._blocks(shard, rows, job.piece)]
            except ValueError as error:
                url = urls.within(self._root, self._name(shard))
                lost = DataError(f"{url}: {error}: it is cut or changed; fetch it again, or {self._remedy}")
                lost.__cause__ = error
            except DataError as error:
                lost = error
            if not self._skip or not isinstance(lost.__cause__, (FileNotFoundError, ValueError)):
                raise lost
            self._lost.add(shard)
            logger.warning("its samples are replaced by others: %s", lost)
        return [(f"{self._name(shard)}@{start}", b"") for start in rows["start"].tolist()]

    def _blocks(self, shard: int, rows: Table, piece: Piece | None) -> Iterator[Data]:
        starts, lengths = rows["start"].tolist(), rows["length"].tolist()
        if self._cache is None or piece is None:
            first, whole = starts[0], self._file(shard).read(starts[0], starts[-1] + lengths[-1])
            data = memoryview(whole) if sum(lengths) > DENSE * len(whole) else whole  # slices of bytes are copies
            for start, length in zip(starts, lengths, strict=True):
                yield data[start - first : start - first + length]
            return
        fetch = partial(self._part, shard, piece)
        spans = [(start - piece.start, start - piece.start + n) for start, n in zip(starts, lengths, strict=True)]
        yield from self._cache.read(piece.name, piece.stop - piece.start, spans, fetch)

    def _part(self, shard: int, piece: Piece) -> bytes:
        return self._file(shard).read(piece.start, piece.stop)

    def _open(self, shard: int) -> storage.File:
        size = self._told["bytes"][shard].as_py()
        file = storage.opened(self._root, self._name(shard), remedy=f"put it back, or {self._remedy}")
        if file.size != size:
            raise ValueError(f"{file.size} bytes, but {size} when it was indexed")
        return file

    def _name(self, shard: int) -> str:
        return str(self._told["name"][shard])
