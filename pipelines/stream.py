"""The training stream on Ray Data: read tasks over segments of steps, each reading, decoding and cropping in one go.

What a step holds is defined in `lanes` and `counted`; Ray only decides where and when it is made. A row of the data set
is one step of one worker: its views (n, size, size, 3) uint8, and the number and epoch of each sample.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.extensions import ArrowTensorArray
from ray.train import DataConfig

from selfsup.errors import DataError
from selfsup.pipelines.counted import CROP, Ints, uniform
from selfsup.pipelines.decode import Undecodable, dimensions
from selfsup.pipelines.decode import crops as cut
from selfsup.pipelines.lanes import Lanes
from selfsup.pipelines.manifest import Manifest, Reader, Sample
from selfsup.pipelines.views import CROP_DRAWS, Views, boxes, flips

MAX_TASKS = 2000  # for the longest schedule; Ray Data plans them all before the first one runs
GROUP = 512  # samples fetched together: large enough for large reads, small enough to hold
BLOCK_BYTES = 8 * 2**20
MAX_REPLACEMENTS = 100

Columns = dict[str, NDArray[Any]]
Crops = list[NDArray[np.uint8]]
Each = Callable[..., Iterable[Any]]  # map, by one thread or several


@dataclass(frozen=True)
class Stream:
    """A training stream, as data: a pure function of its fields. Every crop of `views` has its size."""

    manifest: Manifest
    order: Lanes
    views: Views
    steps: int

    def segments(self, start: int) -> list[tuple[int, int]]:
        """Steps [first, last) of each read task: whole windows where few enough tasks result."""
        length = max(1, self.order.window // self.order.per_lane, ceil(self.steps / MAX_TASKS))
        return [(first, min(first + length, self.steps)) for first in range(start, self.steps, length)]

    def rows(self, lanes: Sequence[int], first: int, last: int, *, threads: int = 1) -> Iterator[Columns]:
        """The steps [first, last) of some lanes, one at a time. `bad` names the samples that had to be replaced."""
        reader = Reader(self.manifest)
        share = len(lanes) * self.order.per_lane
        group = max(1, GROUP // share)
        with ThreadPoolExecutor(threads) as pool:
            each = pool.map if threads > 1 else map
            for start in range(first, last, group):
                epoch, index = self._order(lanes, start, min(start + group, last))
                samples = reader.read(index.ravel())
                for row in range(len(index)):
                    chosen = samples[row * share : (row + 1) * share]
                    yield self._row(reader, each, chosen, epoch[row], index[row])

    def step_bytes(self, workers: int) -> int:
        pixels = sum(3 * (crop.size or 0) ** 2 for crop in self.views.crops)
        return pixels * self.order.batch // workers

    def _order(self, lanes: Sequence[int], start: int, stop: int) -> tuple[Ints, Ints]:
        taken = [self.order.take(lane, start, stop) for lane in lanes]
        epoch, index = (np.concatenate(part, axis=1) for part in zip(*taken, strict=True))
        return epoch, index

    def _row(self, reader: Reader, each: Each, samples: list[Sample], epoch: Ints, index: Ints) -> Columns:
        made = self._attempt(each, samples, epoch, index)
        bad: list[str] = []
        for shift in range(1, MAX_REPLACEMENTS + 2):
            failed = [place for place, views in enumerate(made) if views is None]
            if not failed:
                break
            if shift > MAX_REPLACEMENTS:
                raise DataError(f"{self.manifest.root}: {MAX_REPLACEMENTS} samples in a row cannot be decoded: {bad}")
            bad += [samples[place].key for place in failed]
            substitutes = reader.read((index[failed] + shift) % self.manifest.num_samples)
            for place, crops, sample in zip(
                failed, self._attempt(each, substitutes, epoch[failed], index[failed]), substitutes, strict=True
            ):
                made[place], samples[place] = crops, sample
        views = {f"view{v}": np.stack([crops[v] for crops in made if crops]) for v in range(len(self.views.crops))}
        return {**views, "index": index, "epoch": epoch, "bad": np.array(bad, dtype=object)}

    def _attempt(self, each: Each, samples: list[Sample], epoch: Ints, index: Ints) -> list[Crops | None]:
        """All views of each sample, or None for one that cannot be decoded."""
        height, width = np.array([_dimensions(sample.data) for sample in samples]).T
        drawn = [
            uniform(seed=self.order.seed, epoch=epoch, index=index, purpose=CROP + 16 * v, draws=CROP_DRAWS)
            for v in range(len(self.views.crops))
        ]
        cuts = [boxes(crop, height, width, draws) for crop, draws in zip(self.views.crops, drawn, strict=True)]
        turned = [flips(crop, draws) for crop, draws in zip(self.views.crops, drawn, strict=True)]
        return list(each(self._cut, samples, np.stack(cuts, axis=1), np.stack(turned, axis=1)))

    def _cut(self, sample: Sample, cuts: NDArray[np.float64], turned: NDArray[np.bool_]) -> Crops | None:
        sizes = [crop.size or 0 for crop in self.views.crops]
        try:
            made = cut(sample.data, cuts, sizes, [crop.resample for crop in self.views.crops])
        except Undecodable:
            return None
        return [view[:, ::-1] if flip else view for view, flip in zip(made, turned, strict=True)]


def _dimensions(data: bytes) -> tuple[int, int]:
    """(height, width); (1, 1) for a broken header, since the decoder will refuse that sample anyway."""
    try:
        return dimensions(data)
    except Undecodable:
        return 1, 1


class LaneSource(Datasource):
    """One worker's share of a stream, from step `start` on, as read tasks."""

    def __init__(self, stream: Stream, *, rank: int, world: int, start: int, threads: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream, self._start, self._threads = stream, start, threads
        self._lanes = list(stream.order.served_by(rank, world))

    def get_name(self) -> str:
        return "Lanes"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        del parallelism, per_task_row_limit, data_context  # the segments are the parallelism
        return [self._task(first, last) for first, last in self._stream.segments(self._start)]

    def _task(self, first: int, last: int) -> ReadTask:
        metadata = BlockMetadata(num_rows=last - first, size_bytes=None, input_files=None, exec_stats=None)
        return ReadTask(partial(_blocks, self._stream, self._lanes, first, last, self._threads), metadata)


def _blocks(stream: Stream, lanes: list[int], first: int, last: int, threads: int) -> Iterator[pa.Table]:
    for row in stream.rows(lanes, first, last, threads=threads):
        bad = pa.array([row.pop("bad").tolist()], pa.list_(pa.string()))
        yield pa.table({name: ArrowTensorArray.from_numpy(column[None]) for name, column in row.items()} | {"bad": bad})


@dataclass(frozen=True)
class Feed:
    """What one training worker of `world` is handed: its lanes, and the CPUs its data tasks may use at a time."""

    stream: Stream
    rank: int
    world: int
    cpus: float

    def steps(self, start: int) -> Iterator[Columns]:
        """One step's columns at a time, from step `start` to the end of the stream."""
        if start >= self.stream.steps:
            return
        threads = max(1, ceil(self.cpus))
        source = LaneSource(self.stream, rank=self.rank, world=self.world, start=start, threads=threads)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = max(BLOCK_BYTES, self.stream.step_bytes(self.world))
        tasks = len(self.stream.segments(start))
        dataset = ray.data.read_datasource(source, override_num_blocks=tasks, num_cpus=self.cpus)
        options = dataset.context.execution_options
        options.preserve_order = True
        options.resource_limits = options.resource_limits.copy(cpu=self.cpus)
        for batch in dataset.iterator().iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=2):
            yield {name: column[0] for name, column in batch.items()}


class LaneConfig(DataConfig):
    """Hands every training worker the Feed of its rank: Ray's own splitting knows neither order nor position.

    cpus: what the data tasks of all workers together may use at a time.
    """

    def __init__(self, cpus: float) -> None:
        super().__init__()
        self._cpus = cpus

    def configure(  # type: ignore[override]  # here Streams and Feeds stand for data sets and their iterators
        self, datasets: Mapping[str, Stream], world_size: int, *_: object, **__: object
    ) -> list[dict[str, Feed]]:
        return [
            {name: Feed(stream, rank, world_size, self._cpus / world_size) for name, stream in datasets.items()}
            for rank in range(world_size)
        ]
