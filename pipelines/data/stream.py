"""The training stream: a worker's steps, prepared by threads a few steps ahead of training.

`order` and `philox` define the content of a step, independent of the process that prepares it. A row holds the columns
of one step of one worker: its views as their modality loads them (n, *S, C), maps (n, S, S), sample numbers, epochs,
labels, boxes, and the keys of undecodable samples, which are replaced by others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup import modality
from selfsup.errors import DataError
from selfsup.evaluator import Map
from selfsup.modality import Boxes, DecodeError, Modality, Raw
from selfsup.pipelines.data import annotation
from selfsup.pipelines.data.buffers import BufferPool
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import CHANGE, CROP, Ints, uniform
from selfsup.pipelines.data.reader import Sample, SampleReader
from selfsup.views import MapSpec, Views

READ_SAMPLES = 512  # fetched together: many enough for large reads, few enough for memory
PIECE = 8  # samples of one task of a thread
MAX_REPLACEMENTS = 100
NEIGHBORS = 8  # replacements tried beside a sample, before others all over the data set

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SampleStream:
    """A training stream as a pure function of its fields.

    Every view has a size; the first ones are of one modality, those of what lies beside it come last, one after the
    other. masked: the modalities, and maps, that samples may lack; absent values, in boxes of zeros, stand for them.
    """

    manifest: Manifest
    order: SampleOrder
    views: Views
    steps: int
    masked: tuple[str, ...] = ()

    def rows(self, lanes: Sequence[int], first: int, last: int, *, threads: int, memory: int) -> Iterator[Columns]:
        """Yield the steps [first, last) of some lanes, prepared ahead by threads.

        memory: bytes for samples and steps, including the step last yielded; at least one step is prepared ahead.
        The threads end with the iterator: when it is exhausted, raises or is closed.
        """
        kinds = [modality.ready(name) for name in self.modalities]
        with _pool(1) as read_pool, _pool(threads, partial(_begin_thread, kinds)) as crop_pool:
            maker = _StepMaker(self, lanes, read_pool, crop_pool)
            yield from maker.rows(first, last, *maker.prefetch(threads, memory))

    @property
    def modalities(self) -> list[str]:
        """Return the modalities of its views, in the order of these."""
        return list(dict.fromkeys(view.modality for view in self.views.specs))

    @property
    def raw(self) -> list[tuple[tuple[int, ...], type[np.generic]]]:
        """Return shape and type of each view of a sample, as it is loaded."""
        readings = {name: self.manifest.reading(name) for name in self.modalities}
        return [modality.load(view.modality).raw(view, readings[view.modality]) for view in self.views.specs]

    @property
    def raw_maps(self) -> list[tuple[tuple[int, ...], type[np.generic]]]:
        """Return shape and type of each map of a sample: of its first view."""
        return [(self.views.specs[0].lengths, annotation.dtype(spec.name)) for spec in self.views.maps]

    def step_bytes(self, lanes: int) -> int:
        """Return the bytes of a step's views and maps of so many lanes."""
        parts = self.raw + self.raw_maps
        return self.order.per_lane * lanes * sum(prod(shape) * np.dtype(kind).itemsize for shape, kind in parts)


def _map_of(spec: MapSpec, sample: Sample, side: int, box: NDArray[np.floating], *, masked: bool) -> Map:
    """Return a map of the part of an image in a box; if it may be masked, of nothing known where the sample has none.

    Raises DataError where it shows more classes than that.
    """
    if masked and not sample.data:
        return np.full((side, side), annotation.absent(spec.name))
    values = annotation.read(spec.name, sample.data, side, sample.key, box)
    if spec.classes is not None and (largest := values.max()) >= spec.classes:
        name = f"{sample.key}.{annotation.SUFFIXES[spec.name]}"
        raise DataError(f"{name} shows class {largest}, and there are {spec.classes}: set `classes` to more")
    return values


def _key(parts: Sequence[Sample]) -> str:
    """Return the key of a sample, some fields of which may be lacking."""
    return next((part.key for part in parts if part.key), "")


def _begin_thread(kinds: Sequence[Modality]) -> None:
    for kind in kinds:
        kind.begin_thread()


@contextmanager
def _pool(threads: int, start: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; at the end of the block, cancel queued tasks and wait for running ones."""
    pool = ThreadPoolExecutor(threads, initializer=start)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _ReadGroup(NamedTuple):
    """Samples read for some steps. epoch, index: (steps, n).

    samples: of each field. boxes: of each, (steps * n, V, 3A + 1), a `View.box` for each of its V views. maps: the same
    samples, with a map for their data, for each that the stream holds.
    """

    epoch: Ints
    index: Ints  # type: ignore[assignment]  # a tuple's method of that name
    samples: list[list[Sample]]
    boxes: list[Boxes]
    maps: list[list[Sample]]


class _Step(NamedTuple):
    """A step in preparation. pieces: the keys of undecodable samples in each part of it."""

    group: Future[_ReadGroup]
    row: int
    views: list[Raw]
    maps: list[Map]
    pieces: list[Future[list[str]]]

    def columns(self) -> Columns:
        """Wait for the step, and return its columns."""
        bad = [key for piece in self.pieces for key in piece.result()]
        group, views = self.group.result(), {f"view{number}": view for number, view in enumerate(self.views)}
        maps = {f"map{number}": map_ for number, map_ in enumerate(self.maps)}
        size = group.index.shape[1]
        here = slice(self.row * size, (self.row + 1) * size)
        label = np.array([-1 if sample.label is None else sample.label for sample in group.samples[0][here]], np.int64)
        numbers = {"index": group.index[self.row], "epoch": group.epoch[self.row], "label": label}
        fields = zip(group.boxes, group.samples, strict=True)
        boxes = [box for own, samples in fields for box in _shown(own[here], samples[here]).swapaxes(0, 1)]
        places = {f"box{number}": box for number, box in enumerate(boxes)}
        return {**views, **maps, **places, **numbers, "bad": np.array(bad, dtype=object)}


def _shown(boxes: Boxes, samples: list[Sample]) -> NDArray[np.float32]:
    """(n, V, 3A + 1) -> the same; zeros for samples that lack what the views are of"""
    has = np.array([bool(sample.key) for sample in samples])
    shown: NDArray[np.float32] = (boxes * has[:, None, None]).astype(np.float32)
    return shown


class _Field:
    """A field of the samples of a stream: of one modality. numbers: of its views."""

    def __init__(self, stream: SampleStream, name: str) -> None:
        self.kind, self.reading = modality.load(name), stream.manifest.reading(name)
        self.reader = SampleReader(stream.manifest, name)  # used by the thread of the read pool alone
        numbers = [number for number, view in enumerate(stream.views.specs) if view.modality == name]
        self.views = stream.views.specs[numbers[0] : numbers[-1] + 1]
        self.numbers = slice(numbers[0], numbers[-1] + 1)
        self._seed, self._stream = stream.order.seed, stream.views
        self._is_masked = modality.member_of(name) in stream.masked

    def load(self, samples: list[Sample], boxes: Boxes, parts: list[Raw]) -> list[int]:
        """Load n samples, (n, V, 3A + 1), into the arrays of all views; return which of them are damaged."""
        data, own = [sample.data for sample in samples], parts[self.numbers]
        bad = self.kind.fill(data, boxes, self.views, self.reading, own)
        lacking = {place for place in bad if self._is_masked and not samples[place].key}
        for place in lacking:
            for view in own:
                view[place] = self.kind.absent
        return [place for place in bad if place not in lacking]

    def place(self, samples: list[Sample], epoch: Ints, index: Ints, before: Sequence[Boxes]) -> Boxes:
        """-> (samples, V, 3A + 1): a `View.box` each. before: (samples, 3A' + 1) each, of all earlier views"""
        extents, placed = np.array([self._extent(sample) for sample in samples]), []
        for number in range(self.numbers.start, self.numbers.stop):
            first = self._stream.place(number)
            is_own = first >= self.numbers.start
            place = first if is_own else number
            view, purpose = self._stream.specs[place], CROP + 16 * place
            draws = uniform(seed=self._seed, epoch=epoch, index=index, purpose=purpose, draws=self.kind.place_draws)
            if is_own:
                boxes = self.kind.place(view, extents, draws)
            else:
                axes = modality.load(self._stream.specs[first].modality).axes
                boxes = self.kind.follow(view, extents, draws, axes, before[first])
            placed.append(np.concatenate([boxes, extents], axis=1))
        return np.stack(placed, axis=1)

    def _extent(self, sample: Sample) -> tuple[int, ...]:
        """Return the length along each axis; ones for a broken header: the decoder will reject the sample."""
        try:
            return self.kind.extent(sample.data, self.reading)
        except DecodeError:
            return (1,) * len(self.kind.axes)


class _StepMaker:
    """Prepares the steps of some lanes: one thread reads groups of steps, others crop pieces of steps."""

    def __init__(
        self, stream: SampleStream, lanes: Sequence[int], read_pool: ThreadPoolExecutor, crop_pool: ThreadPoolExecutor
    ) -> None:
        self._stream, self._lanes, self._read_pool, self._crop_pool = stream, lanes, read_pool, crop_pool
        self._fields = [_Field(stream, name) for name in stream.modalities]
        self._map_readers = [SampleReader(stream.manifest, spec.name) for spec in stream.views.maps]  # likewise
        self._buffers, self._raw = BufferPool(), stream.raw
        self._batch = len(lanes) * stream.order.per_lane
        views = enumerate(stream.views.specs)
        self._changing = [number for number, view in views if modality.load(view.modality).change_draws(view)]

    def prefetch(self, threads: int, memory: int) -> tuple[int, int]:
        """Return how many steps to read together, and how many to prepare ahead, within so much memory."""
        manifest = self._stream.manifest
        encoded = self._batch * sum(manifest.shards["bytes"].to_pylist()) // manifest.total
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
        samples = [field.reader.read(index.ravel()) for field in self._fields]
        maps = [reader.read(index.ravel()) for reader in self._map_readers]
        return _ReadGroup(epoch, index, samples, self._place(samples, epoch.ravel(), index.ravel()), maps)

    def _begin(self, group: Future[_ReadGroup], row: int) -> _Step:
        views = [self._buffers.take((self._batch, *shape), kind) for shape, kind in self._raw]
        maps = [self._buffers.take((self._batch, *shape), kind) for shape, kind in self._stream.raw_maps]
        parts = [range(self._batch)[start : start + PIECE] for start in range(0, self._batch, PIECE)]
        pieces = [self._crop_pool.submit(self._fill, group, row, views, maps, places) for places in parts]
        return _Step(group, row, views, maps, pieces)

    def _fill(
        self, future: Future[_ReadGroup], row: int, views: list[Raw], maps: list[Map], places: range
    ) -> list[str]:
        """Fill these places of views and maps; return the keys of undecodable samples, which are replaced."""
        group, bad, first = future.result(), list[str](), row * self._batch
        here = slice(first + places.start, first + places.stop)
        parts = [view[places.start : places.stop] for view in views]
        for place in self._load([own[here] for own in group.samples], [own[here] for own in group.boxes], parts):
            at = here.start + place
            key = _key([own[at] for own in group.samples])
            bad += [key, *self._replace(group, at, [part[place : place + 1] for part in parts])]
        for number in self._changing:
            self._change(parts[number], number, group, here)
        for spec, own, map_ in zip(self._stream.views.maps, group.maps, maps, strict=True):
            for place in places:
                at = first + place
                is_masked, box = spec.name in self._stream.masked, group.boxes[0][at, 0]
                map_[place] = _map_of(spec, own[at], map_.shape[-1], box, masked=is_masked)
        return bad

    def _change(self, part: Raw, number: int, group: _ReadGroup, here: slice) -> None:
        """Change the loaded views of some samples as augmentation on the host does. number: of the view."""
        view = self._stream.views.specs[number]
        kind, reading = modality.load(view.modality), self._stream.manifest.reading(view.modality)
        epoch, index = (numbers.ravel()[here] for numbers in (group.epoch, group.index))
        purpose, draws = CHANGE + 16 * number, kind.change_draws(view)
        drawn = uniform(seed=self._stream.order.seed, epoch=epoch, index=index, purpose=purpose, draws=draws)
        for place, own in enumerate(drawn):
            part[place] = kind.change(part[place], view, reading, own)

    def _load(self, samples: list[list[Sample]], boxes: list[Boxes], parts: list[Raw]) -> list[int]:
        """Load samples of all fields; return which of them are damaged in one or the other."""
        fields = zip(self._fields, samples, boxes, strict=True)
        return sorted({place for field, own, places in fields for place in field.load(own, places, parts)})

    def _place(self, samples: list[list[Sample]], epoch: Ints, index: Ints) -> list[Boxes]:
        placed: list[Boxes] = []
        for field, own in zip(self._fields, samples, strict=True):
            before = [box for boxes in placed for box in boxes.swapaxes(0, 1)]
            placed.append(field.place(own, epoch, index, before))
        return placed

    def _replace(self, group: _ReadGroup, at: int, parts: list[Raw]) -> list[str]:
        """Replace a sample by the next that can be decoded; load that, and return the keys of those that cannot.

        After a few neighbors, the search goes on all over the data set: a whole shard may be missing.
        """
        manifest, bad = self._stream.manifest, list[str]()
        epoch, index = group.epoch.flat[at], group.index.flat[at]
        for attempt in range(1, MAX_REPLACEMENTS):
            offset = attempt if attempt <= NEIGHBORS else attempt * max(1, manifest.num_samples // MAX_REPLACEMENTS)
            number = np.array([(index + offset) % manifest.num_samples])
            samples = [self._read_pool.submit(field.reader.read, number).result() for field in self._fields]
            boxes = self._place(samples, np.array([epoch]), np.array([index]))
            if self._load(samples, boxes, parts):
                bad.append(_key([own[0] for own in samples]))
                continue
            for place, own in enumerate(samples):
                group.samples[place][at], group.boxes[place][at] = own[0], boxes[place][0]
            for own, reader in zip(group.maps, self._map_readers, strict=True):
                [own[at]] = self._read_pool.submit(reader.read, number).result()
            return bad
        raise DataError(f"{manifest.root}: {MAX_REPLACEMENTS} samples in a row cannot be decoded: {bad}")
