"""The training stream: the steps of a worker, made by threads a little ahead of who takes them.

What a step holds is defined in `lanes` and `counted`; who makes it, and where, changes nothing. A row is one step of
one worker: its views (n, size, size, 3) uint8, number and epoch of each sample, and the names of those replaced.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from math import ceil, prod
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data.manifest import Manifest, Reader, Sample
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import CROP, Ints, uniform
from selfsup.pipelines.modalities.crops import crops, single_threaded
from selfsup.pipelines.modalities.decode import Data, Pixels, Undecodable, dimensions
from selfsup.views import CROP_DRAWS, Views, boxes, flips

GROUP = 512  # samples fetched together: large enough for large reads, small enough to hold
PIECE = 8  # samples that a thread makes in one go
MAX_REPLACEMENTS = 100
NEIGHBOURS = 8

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Stream:
    """A training stream, as data: a pure function of its fields. Every crop of `views` has its size."""

    manifest: Manifest
    order: SampleOrder
    views: Views
    steps: int

    def rows(self, lanes: Sequence[int], first: int, last: int, *, threads: int, memory: int) -> Iterator[Columns]:
        """The steps [first, last) of some lanes, one at a time, made ahead by so many threads.

        memory: bytes that samples and steps may hold, with the step last taken; at the least, one step is made ahead.
        The threads end with the iterator: at its end, with an error, or when it is closed.
        """
        with _pool(1) as reading, _pool(threads, single_threaded) as making:
            maker = _Maker(self, lanes, reading, making)
            yield from maker.rows(first, last, *maker.ahead(threads, memory))

    def step_bytes(self, lanes: int) -> int:
        """Of the views that so many lanes give to a step."""
        return self.order.per_lane * lanes * sum(3 * (crop.size or 0) ** 2 for crop in self.views.crops)


@contextmanager
def _pool(threads: int, start: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """At the end of the block, what is queued is dropped, and what runs is awaited."""
    pool = ThreadPoolExecutor(threads, initializer=start)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Blanks:
    """Arrays to fill, in the memory of earlier ones that nobody holds any more: fresh pages cost a tenth of a step."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[memoryview]] = defaultdict(list)

    def take(self, *shape: int) -> Pixels:
        idle = self._idle[prod(shape)]
        memory = idle.pop() if idle else np.empty(prod(shape), np.uint8).data
        whole = np.frombuffer(memory, np.uint8)  # what every view of it keeps alive
        finalize(whole, idle.append, memory)
        return whole.reshape(shape)


class _Group(NamedTuple):
    """What was read for some steps: numbers (steps, n); of each sample, its boxes (V, 4) and flips (V,)."""

    epoch: Ints
    index: Ints  # type: ignore[assignment]  # a tuple's method of that name
    samples: list[Sample]
    boxes: NDArray[np.float64]
    flips: NDArray[np.bool_]


class _Step(NamedTuple):
    """A step in the making. pieces: what some samples were, the names of those replaced."""

    group: Future[_Group]
    row: int
    views: list[Pixels]
    pieces: list[Future[list[str]]]

    def columns(self) -> Columns:
        bad = [name for piece in self.pieces for name in piece.result()]
        group, views = self.group.result(), {f"view{number}": view for number, view in enumerate(self.views)}
        size = group.index.shape[1]
        here = slice(self.row * size, (self.row + 1) * size)
        label = np.array([-1 if sample.label is None else sample.label for sample in group.samples[here]], np.int64)
        numbers = {"index": group.index[self.row], "epoch": group.epoch[self.row], "label": label}
        top, left, height, width = np.moveaxis(group.boxes[here], 2, 0)
        boxes = np.stack([left, top, width, height, group.flips[here]], axis=2).astype(np.float32)
        places = {f"box{number}": boxes[:, number] for number in range(len(self.views))}
        return {**views, **places, **numbers, "bad": np.array(bad, dtype=object)}


class _Maker:
    """Makes the rows of some lanes: one thread reads groups of steps, others cut pieces of steps."""

    def __init__(
        self, stream: Stream, lanes: Sequence[int], reading: ThreadPoolExecutor, making: ThreadPoolExecutor
    ) -> None:
        self._stream, self._lanes, self._reading, self._making = stream, lanes, reading, making
        self._reader = Reader(stream.manifest)  # the reading thread's
        self._blanks = Blanks()
        self._share = len(lanes) * stream.order.per_lane
        self._sizes = [crop.size or 0 for crop in stream.views.crops]
        self._resample = [crop.resample for crop in stream.views.crops]

    def ahead(self, threads: int, memory: int) -> tuple[int, int]:
        """Steps read together, and steps begun before the first of them is taken."""
        manifest = self._stream.manifest
        coded = self._share * sum(manifest.shards["bytes"].to_pylist()) // manifest.num_samples
        length = max(1, min(GROUP // self._share, memory // (8 * coded)))
        fits = (memory - 2 * length * coded) // (self._stream.step_bytes(len(self._lanes)) + coded) - 2
        useful = 1 + ceil(4 * threads * PIECE / self._share)
        return length, max(1, min(fits, useful))

    def rows(self, first: int, last: int, length: int, ahead: int) -> Iterator[Columns]:
        held: deque[_Step] = deque()
        starts = range(first, last, length)
        groups = (self._reading.submit(self._read, start, min(start + length, last)) for start in starts)
        for start, (group, _) in zip(starts, pairwise(chain(groups, [None])), strict=True):  # the next is being read
            assert group is not None
            for row in range(min(length, last - start)):
                held.append(self._begin(group, row))
                if len(held) > ahead:
                    yield held.popleft().columns()
        while held:
            yield held.popleft().columns()

    def _read(self, start: int, stop: int) -> _Group:
        taken = [self._stream.order.take(lane, start, stop) for lane in self._lanes]
        epoch, index = (np.concatenate(part, axis=1) for part in zip(*taken, strict=True))
        samples = self._reader.read(index.ravel())
        return _Group(epoch, index, samples, *self._cuts(samples, epoch.ravel(), index.ravel()))

    def _begin(self, group: Future[_Group], row: int) -> _Step:
        views = [self._blanks.take(self._share, size, size, 3) for size in self._sizes]
        places = [range(self._share)[start : start + PIECE] for start in range(0, self._share, PIECE)]
        return _Step(group, row, views, [self._making.submit(self._piece, group, row, views, part) for part in places])

    def _piece(self, coming: Future[_Group], row: int, views: list[Pixels], places: range) -> list[str]:
        """Fill these places of the views; the names of the samples that had to be replaced."""
        group, bad = coming.result(), []
        for place in places:
            at = row * self._share + place
            sample = group.samples[at]
            try:
                made = self._crops(sample, group.boxes[at], group.flips[at])
            except Undecodable:
                made, failed = self._substitute(group, at)
                bad += [sample.key, *failed]
            for view, pixels in zip(views, made, strict=True):
                view[place] = pixels
        return bad

    def _crops(self, sample: Sample, cuts: NDArray[np.float64], turned: NDArray[np.bool_]) -> list[Pixels]:
        bits = self._stream.manifest.bits
        return crops(sample.data, cuts, self._sizes, self._resample, turned.tolist(), bits=bits)

    def _substitute(self, group: _Group, at: int) -> tuple[list[Pixels], list[str]]:
        """Put the next sample that can be decoded in the place of one: its crops, and the names of those between.

        After a few neighbours, it is looked for all over the set: they may lie in a shard that is lost as a whole.
        """
        manifest, bad = self._stream.manifest, list[str]()
        epoch, index = group.epoch.flat[at], group.index.flat[at]
        for shift in range(1, MAX_REPLACEMENTS):
            away = shift if shift <= NEIGHBOURS else shift * max(1, manifest.num_samples // MAX_REPLACEMENTS)
            number = np.array([(index + away) % manifest.num_samples])
            samples = self._reading.submit(self._reader.read, number).result()
            (cuts,), (turned,) = self._cuts(samples, np.array([epoch]), np.array([index]))
            try:
                made = self._crops(samples[0], cuts, turned)
            except Undecodable:
                bad.append(samples[0].key)
                continue
            group.samples[at], group.boxes[at], group.flips[at] = samples[0], cuts, turned
            return made, bad
        raise DataError(f"{manifest.root}: {MAX_REPLACEMENTS} samples in a row cannot be decoded: {bad}")

    def _cuts(self, samples: list[Sample], epoch: Ints, index: Ints) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """-> (samples, V, 4), (samples, V): the box and the flip of each view"""
        height, width = np.array([_dimensions(sample.data) for sample in samples]).T
        views, seed = self._stream.views, self._stream.order.seed
        cuts, turned = [], []
        for view in map(views.place, range(len(views.crops))):
            draws = uniform(seed=seed, epoch=epoch, index=index, purpose=CROP + 16 * view, draws=CROP_DRAWS)
            cuts.append(boxes(views.crops[view], height, width, draws))
            turned.append(flips(views.crops[view], draws))
        return np.stack(cuts, axis=1), np.stack(turned, axis=1)


def _dimensions(data: Data) -> tuple[int, int]:
    """(height, width); (1, 1) for a broken header, since the decoder will refuse that sample anyway."""
    try:
        return dimensions(data)
    except Undecodable:
        return 1, 1
