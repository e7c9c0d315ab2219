"""One stream for several runs: every step is made once on a node, and all that train there map the same memory.

A hub, an actor, makes the steps and holds a window of them in the object store. A reader asks it for each step while
busy with the one before. Where the hub refuses, or is lost, the reader makes the step itself, by its own Feed. So
whatever becomes of the hub and of other readers, it sees the rows of that Feed.
"""

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.pipelines.data.feed import Feed, LaneConfig
from selfsup.pipelines.data.shared_window import Window
from selfsup.pipelines.data.stream import Columns, Stream
from selfsup.sections import Feeder

NAMESPACE = "selfsup"
LOOK = 0.05  # seconds between looks at whether there is room
LINGER = 2.0  # seconds, once or twice, that a hub outlives its last reader
PATIENCE = 60.0  # seconds that a reader waits for a hub that says nothing
RETRY = 10.0  # seconds from the loss of a hub to the next one

Rows = Generator[Columns, None, None]
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ShareConfig(LaneConfig):
    """Hands every training worker the Feed of its rank, to be shared with that rank's of other runs.

    key: equal where the Feeds are. reader: of this run, whatever its attempt. peers: runs that begin together.
    """

    def __init__(self, feeder: Feeder, cpus: float, memory: int, key: str, reader: str, peers: int) -> None:
        super().__init__(feeder, cpus, memory)
        self._key, self._reader, self._peers = key, reader, peers

    def configure(  # type: ignore[override]
        self, datasets: Mapping[str, Stream], world_size: int, *_: object, **__: object
    ) -> "list[dict[str, Shared]]":
        return [
            {name: Shared(feed, self._key, self._reader, self._peers) for name, feed in handed.items()}
            for handed in super().configure(datasets, world_size)
        ]


@dataclass
class Shared:
    """A Feed whose rows others may want too: those of the same job and node with this key, rank and world.

    taken: steps that it was given so far, and has not made itself.
    """

    feed: Feed
    key: str
    reader: str
    peers: int
    taken: int = 0

    def steps(self, start: int) -> Rows:
        """The same as those of the Feed, but not to be written to."""
        link, last = StreamClient(self), self.feed.stream.steps
        own: Rows | None = None
        took: float | None = None
        try:
            for step in range(start, last):
                if step == start:
                    link.ask(step, took)
                columns = link.answer()
                if columns is None:
                    own = own or self.feed.steps(step)
                    columns = next(own)
                else:
                    if own:
                        own.close()
                    own = None
                    self.taken += 1
                if step + 1 < last:
                    link.ask(step + 1, took)
                since = monotonic()
                yield columns
                took = monotonic() - since
        finally:
            link.leave()

    @property
    def length(self) -> int:
        """Steps of a window, which takes as much memory as the Feed itself."""
        return max(2, self.feed.memory // self.feed.stream.step_bytes(len(self.feed.lanes)))

    def hub(self) -> Any:
        """The one of this job and node, or a new one."""
        context = ray.get_runtime_context()
        node = context.get_node_id()
        actor = ray.remote(StreamServer).options(
            name=f"{self.key}-{self.feed.rank}-{self.feed.world}-{context.get_job_id()}-{node}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",  # else it would end with the reader that came first
            num_cpus=0,  # it uses those that its readers do not
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        return actor.remote(self.feed, self.length, self.peers)


class StreamClient:
    """From a reader to its hub. No error of the hub gets through, and it keeps no reader waiting for long."""

    def __init__(self, shared: Shared) -> None:
        self._shared, self._again = shared, 0.0
        self._hub: Any = None
        self._asked: ObjectRef[Any] | None = None

    def ask(self, step: int, took: float | None) -> None:
        """For a step. took: seconds of its own for the latest."""
        shared, self._asked = self._shared, None
        if monotonic() >= self._again:
            self._hub = self._hub or shared.hub()
            self._asked = self._hub.take.remote(shared.reader, step, shared.feed.stream.steps, took)

    def answer(self) -> Columns | None:
        """The step that was asked for, mapped; None: it is not to be had."""
        if self._asked is None:
            return None
        try:
            given = ray.get(self._asked, timeout=PATIENCE)
            return ray.get(given[0], timeout=PATIENCE) if given else None
        except RayError as error:
            logger.warning("%s makes its stream itself: %s", self._shared.reader, error)
            self._hub, self._again = None, monotonic() + RETRY
            return None

    def leave(self) -> None:
        if self._hub:
            self._hub.leave.remote(self._shared.reader)


class StreamServer:
    """Makes the steps of a Feed, each once, for the readers of a node."""

    def __init__(self, feed: Feed, length: int, peers: int) -> None:
        self._feed, self._length, self._peers = feed, length, peers
        self._steps = 0  # of the longest of its readers
        self._window: Window[ObjectRef[Any]] = Window(0, length, peers)
        self._making: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)  # one call of a Feed after the other

    async def take(self, reader: str, step: int, steps: int, took: float | None) -> list[ObjectRef[Any]]:
        """A step's columns, as a reference in a list; none for a reader that is to make them itself.

        steps: those of its whole stream. took: seconds of its own for the latest.
        """
        self._watching = self._watching or asyncio.create_task(self._watch())
        self._steps = max(self._steps, steps)
        if not self._window.ask(reader, step, took, monotonic()):
            if not self._window.empty(monotonic()):
                return []
            self._begin(step)
            self._window.ask(reader, step, took, monotonic())
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make(self._window))
        while self._window.waits(reader, step):
            if held := self._window.give(reader):
                self._wake()
                return [held]
            await self._change()
        return []

    async def leave(self, reader: str) -> None:
        self._window.leave(reader)
        self._wake()

    def _begin(self, step: int) -> None:
        """Start a window there; who still waits in the one before is refused."""
        if self._making:
            self._making.cancel()
        self._window, self._making = Window(step, self._length, self._peers), None
        self._wake()

    async def _make(self, window: Window[ObjectRef[Any]]) -> None:
        """The steps of a window, for as long as there are readers that want more."""
        try:
            while window.high < self._steps:
                await self._fill(window)
        except Exception as error:  # its readers will meet it themselves
            logger.warning("a shared stream ends: %s", error)
            self._begin(0)

    async def _fill(self, window: Window[ObjectRef[Any]]) -> None:
        stream = replace(self._feed.stream, steps=self._steps)
        rows = replace(self._feed, stream=stream).steps(window.high)
        try:
            while held := await self._call(lambda: _put(rows)):
                since = monotonic()
                while not window.room(since, since := monotonic()):
                    await self._change(LOOK)
                window.push(held)
                self._wake()
        finally:
            await self._call(rows.close)

    async def _watch(self) -> None:
        """End once nobody has read for a while."""
        idle = False
        while not (idle and self._window.empty(monotonic())):
            idle = self._window.empty(monotonic())
            await asyncio.sleep(LINGER)
        ray.kill(ray.get_runtime_context().current_actor)

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _change(self, timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _wake(self) -> None:
        """All who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()


def _put(rows: Rows) -> ObjectRef[Any] | None:
    row = next(rows, None)
    return None if row is None else ray.put(row)
