"""The training stream: a worker's steps, prepared by threads a few steps ahead of training.

`order` and `philox` define the content of a step, independent of the process that prepares it. A row holds the columns
of one step of one worker: its views (n, size, size, 3) uint8, sample numbers, epochs, labels, boxes, and the keys of
undecodable samples, which are replaced by others.
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
from selfsup.pipelines.data.manifest import Manifest, Sample, SampleReader
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import CROP, Ints, uniform
from selfsup.pipelines.modalities.crops import crops, single_threaded
from selfsup.pipelines.modalities.decode import Data, DecodeError, Pixels, dimensions
from selfsup.views import CROP_DRAWS, Views, boxes, flips

READ_SAMPLES = 512  # fetched together: many enough for large reads, few enough for memory
PIECE = 8  # samples of one task of a thread
MAX_REPLACEMENTS = 100
NEIGHBORS = 8  # replacements tried beside a sample, before others all over the data set

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SampleStream:
    """A training stream as a pure function of its fields. Every crop of `views` has a size."""

    manifest: Manifest
    order: SampleOrder
    views: Views
    steps: int

    def rows(self, lanes: Sequence[int], first: int, last: int, *, threads: int, memory: int) -> Iterator[Columns]:
        """Yield the steps [first, last) of some lanes, prepared ahead by threads.

        memory: bytes for samples and steps, including the step last yielded; at least one step is prepared ahead.
        The threads end with the iterator: when it is exhausted, raises or is closed.
        """
        with _pool(1) as read_pool, _pool(threads, single_threaded) as crop_pool:
            maker = _StepMaker(self, lanes, read_pool, crop_pool)
            yield from maker.rows(first, last, *maker.prefetch(threads, memory))

    def step_bytes(self, lanes: int) -> int:
        """Return the bytes of a step's views of so many lanes."""
        return self.order.per_lane * lanes * sum(3 * (crop.size or 0) ** 2 for crop in self.views.crops)


@contextmanager
def _pool(threads: int, start: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; at the end of the block, cancel queued tasks and wait for running ones."""
    pool = ThreadPoolExecutor(threads, initializer=start)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class BufferPool:
    """Uninitialized arrays that reuse the memory of released ones: fresh pages would cost a tenth of a step."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[memoryview]] = defaultdict(list)

    def take(self, *shape: int) -> Pixels:
        idle = self._idle[prod(shape)]
        memory = idle.pop() if idle else np.empty(prod(shape), np.uint8).data
        array = np.frombuffer(memory, np.uint8)  # kept alive by every view of it
        finalize(array, idle.append, memory)
        return array.reshape(shape)


class _ReadGroup(NamedTuple):
    """Samples read for some steps. epoch, index: (steps, n). boxes: (steps * n, V, 7), a `View.box` a view."""

    epoch: Ints
    index: Ints  # type: ignore[assignment]  # a tuple's method of that name
    samples: list[Sample]
    boxes: NDArray[np.float64]


class _Step(NamedTuple):
    """A step in preparation. pieces: the keys of undecodable samples in each part of it."""

    group: Future[_ReadGroup]
    row: int
    views: list[Pixels]
    pieces: list[Future[list[str]]]

    def columns(self) -> Columns:
        """Wait for the step, and return its columns."""
        bad = [key for piece in self.pieces for key in piece.result()]
        group, views = self.group.result(), {f"view{number}": view for number, view in enumerate(self.views)}
        size = group.index.shape[1]
        here = slice(self.row * size, (self.row + 1) * size)
        label = np.array([-1 if sample.label is None else sample.label for sample in group.samples[here]], np.int64)
        numbers = {"index": group.index[self.row], "epoch": group.epoch[self.row], "label": label}
        boxes = group.boxes[here].astype(np.float32)
        places = {f"box{number}": boxes[:, number] for number in range(len(self.views))}
        return {**views, **places, **numbers, "bad": np.array(bad, dtype=object)}


class _StepMaker:
    """Prepares the steps of some lanes: one thread reads groups of steps, others crop pieces of steps."""

    def __init__(
        self, stream: SampleStream, lanes: Sequence[int], read_pool: ThreadPoolExecutor, crop_pool: ThreadPoolExecutor
    ) -> None:
        self._stream, self._lanes, self._read_pool, self._crop_pool = stream, lanes, read_pool, crop_pool
        self._reader = SampleReader(stream.manifest)  # used by the thread of the read pool alone
        self._buffers = BufferPool()
        self._batch = len(lanes) * stream.order.per_lane
        self._sizes = [crop.size or 0 for crop in stream.views.crops]
        self._resample = [crop.resample for crop in stream.views.crops]

    def prefetch(self, threads: int, memory: int) -> tuple[int, int]:
        """Return how many steps to read together, and how many to prepare ahead, within so much memory."""
        manifest = self._stream.manifest
        encoded = self._batch * sum(manifest.shards["bytes"].to_pylist()) // manifest.num_samples
        length = max(1, min(READ_SAMPLES // self._batch, memory // (8 * encoded)))
        fits = (memory - 2 * length * encoded) // (self._stream.step_bytes(len(self._lanes)) + encoded) - 2
        useful = 1 + ceil(4 * threads * PIECE / self._batch)
        return length, max(1, min(fits, useful))

    def rows(self, first: int, last: int, length: int, ahead: int) -> Iterator[Columns]:
        """Yield the steps [first, last). length: steps read together. ahead: steps prepared ahead."""
        queue: deque[_Step] = deque()
        starts = range(first, last, length)
        groups = (self._read_pool.submit(self._read, start, min(start + length, last)) for start in starts)
        for start, (group, _) in zip(starts, pairwise(chain(groups, [None])), strict=True):  # the next is being read
            assert group is not None
            for row in range(min(length, last - start)):
                queue.append(self._begin(group, row))
                if len(queue) > ahead:
                    yield queue.popleft().columns()
        while queue:
            yield queue.popleft().columns()

    def _read(self, start: int, stop: int) -> _ReadGroup:
        numbers = [self._stream.order.take(lane, start, stop) for lane in self._lanes]
        epoch, index = (np.concatenate(part, axis=1) for part in zip(*numbers, strict=True))
        samples = self._reader.read(index.ravel())
        return _ReadGroup(epoch, index, samples, self._draw_crops(samples, epoch.ravel(), index.ravel()))

    def _begin(self, group: Future[_ReadGroup], row: int) -> _Step:
        views = [self._buffers.take(self._batch, size, size, 3) for size in self._sizes]
        parts = [range(self._batch)[start : start + PIECE] for start in range(0, self._batch, PIECE)]
        pieces = [self._crop_pool.submit(self._fill, group, row, views, places) for places in parts]
        return _Step(group, row, views, pieces)

    def _fill(self, future: Future[_ReadGroup], row: int, views: list[Pixels], places: range) -> list[str]:
        """Fill these places of the views; return the keys of undecodable samples, which are replaced."""
        group, bad = future.result(), []
        for place in places:
            at = row * self._batch + place
            sample = group.samples[at]
            try:
                images = self._crop(sample, group.boxes[at])
            except DecodeError:
                images, failed = self._replace(group, at)
                bad += [sample.key, *failed]
            for view, pixels in zip(views, images, strict=True):
                view[place] = pixels
        return bad

    def _crop(self, sample: Sample, boxes: NDArray[np.float64]) -> list[Pixels]:
        bits, mirrored = self._stream.manifest.bits, (boxes[:, 4] > 0).tolist()
        return crops(sample.data, boxes[:, :4], self._sizes, self._resample, mirrored, bits=bits)

    def _replace(self, group: _ReadGroup, at: int) -> tuple[list[Pixels], list[str]]:
        """Replace a sample by the next that can be decoded; return its crops, and the keys of those that cannot.

        After a few neighbors, the search goes on all over the data set: a whole shard may be missing.
        """
        manifest, bad = self._stream.manifest, list[str]()
        epoch, index = group.epoch.flat[at], group.index.flat[at]
        for attempt in range(1, MAX_REPLACEMENTS):
            offset = attempt if attempt <= NEIGHBORS else attempt * max(1, manifest.num_samples // MAX_REPLACEMENTS)
            number = np.array([(index + offset) % manifest.num_samples])
            samples = self._read_pool.submit(self._reader.read, number).result()
            [boxes] = self._draw_crops(samples, np.array([epoch]), np.array([index]))
            try:
                images = self._crop(samples[0], boxes)
            except DecodeError:
                bad.append(samples[0].key)
                continue
            group.samples[at], group.boxes[at] = samples[0], boxes
            return images, bad
        raise DataError(f"{manifest.root}: {MAX_REPLACEMENTS} samples in a row cannot be decoded: {bad}")

    def _draw_crops(self, samples: list[Sample], epoch: Ints, index: Ints) -> NDArray[np.float64]:
        """-> (samples, V, 7): a `View.box` each"""
        sizes = np.array([_dimensions(sample.data) for sample in samples])
        height, width = sizes.T
        views, seed = self._stream.views, self._stream.order.seed
        drawn = []
        for view in map(views.place, range(len(views.crops))):
            draws = uniform(seed=seed, epoch=epoch, index=index, purpose=CROP + 16 * view, draws=CROP_DRAWS)
            box, mirrored = boxes(views.crops[view], height, width, draws), flips(views.crops[view], draws)
            drawn.append(np.concatenate([box, mirrored[:, None], sizes], axis=1))
        return np.stack(drawn, axis=1)


def _dimensions(data: Data) -> tuple[int, int]:
    """Return (height, width); (1, 1) for a broken header: the decoder will reject the sample."""
    try:
        return dimensions(data)
    except DecodeError:
        return 1, 1
