"""Delivery of a stream to training workers: by threads of each worker, or by Ray Data tasks on any node.

Both produce the same rows.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil

import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.extensions import ArrowTensorArray

from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.sections import Feeder

MAX_TASKS = 2000  # of a stream; Ray Data plans all of them before the first one runs
BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Feed:
    """The stream of one training worker, of this rank among `world`.

    cpus, memory: for preparing its steps; memory in bytes.
    """

    stream: SampleStream
    rank: int
    world: int
    feeder: Feeder
    cpus: float
    memory: int

    def steps(self, start: int) -> Generator[Columns, None, None]:
        """Yield the columns of each step, from step `start` to the end of the stream."""
        if start < self.stream.steps:
            yield from self._by_threads(start) if self.feeder == "threads" else self._by_ray(start)

    @property
    def lanes(self) -> list[int]:
        return list(self.stream.order.served_by(self.rank, self.world))

    @property
    def threads(self) -> int:
        return max(1, ceil(self.cpus))

    def _by_threads(self, start: int) -> Iterator[Columns]:
        return self.stream.rows(self.lanes, start, self.stream.steps, threads=self.threads, memory=self.memory)

    def _by_ray(self, start: int) -> Iterator[Columns]:
        source = StreamDatasource(self, start)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = max(BLOCK_BYTES, self.stream.step_bytes(len(self.lanes)))
        dataset = ray.data.read_datasource(source, override_num_blocks=len(source.segments), num_cpus=self.cpus)
        options = dataset.context.execution_options
        options.preserve_order = True
        options.resource_limits = options.resource_limits.copy(cpu=self.cpus, object_store_memory=self.memory // 2)
        for batch in dataset.iterator().iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=1):
            yield {name: column[0] for name, column in batch.items()}


class StreamDatasource(Datasource):
    """The steps of one worker, from step `start` on, as read tasks of Ray Data."""

    def __init__(self, feed: Feed, start: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._feed = feed
        self.segments = segments(feed.stream, start)

    def get_name(self) -> str:
        return "SampleOrder"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        del parallelism, per_task_row_limit, data_context  # the segments are the parallelism
        return [self._task(first, last) for first, last in self.segments]

    def _task(self, first: int, last: int) -> ReadTask:
        metadata = BlockMetadata(num_rows=last - first, size_bytes=None, input_files=None, exec_stats=None)
        return ReadTask(partial(_blocks, self._feed, first, last), metadata)


def segments(stream: SampleStream, start: int) -> list[tuple[int, int]]:
    """Return the steps [first, last) of each read task: one window per task unless that gives too many tasks."""
    length = max(1, stream.order.window // stream.order.per_lane, ceil(stream.steps / MAX_TASKS))
    return [(first, min(first + length, stream.steps)) for first in range(start, stream.steps, length)]


def _blocks(feed: Feed, first: int, last: int) -> Iterator[pa.Table]:
    memory = feed.memory // 2
    for row in feed.stream.rows(feed.lanes, first, last, threads=feed.threads, memory=memory):
        bad = pa.array([row.pop("bad").tolist()], pa.list_(pa.string()))
        yield pa.table({name: ArrowTensorArray.from_numpy(column[None]) for name, column in row.items()} | {"bad": bad})


@dataclass(frozen=True)
class FeedPlan:
    """The Feeds of all workers of a run. cpus: of all workers together. memory: bytes per worker."""

    stream: SampleStream
    feeder: Feeder
    cpus: float
    memory: int

    def feed(self, rank: int, world: int) -> Feed:
        """Return the Feed of a worker, of so many."""
        return Feed(self.stream, rank, world, self.feeder, self.cpus / world, self.memory)
