"""A stream shared by several runs: each step is prepared once per node, in the object store, for all workers there.

A server, a detached actor, prepares steps and keeps a window of them. A client requests the next step while its worker
trains on the current one. Where the server refuses a step or dies, the client prepares the step itself, by its own
Feed. So whatever happens to the server and to other clients, a worker sees the rows of its Feed.
"""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.pipelines.data.feed import Feed, FeedPlan
from selfsup.pipelines.data.shared_window import StepWindow
from selfsup.pipelines.data.stream import Columns

NAMESPACE = "selfsup"
POLL_SECONDS = 0.05  # between checks for room in the window
IDLE_SECONDS = 2.0  # once or twice that after its last client, a server ends
TIMEOUT = 60.0  # seconds that a client waits for a server
RETRY_SECONDS = 10.0  # from the loss of a server to the next one

Rows = Generator[Columns, None, None]
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedFeedPlan:
    """Feeds of which that of each rank is shared with the same rank of other runs.

    key: equal for equal streams. reader: names this run, in every attempt. peers: number of runs that begin together.
    """

    plan: FeedPlan
    key: str
    reader: str
    peers: int

    def feed(self, rank: int, world: int) -> "SharedFeed":
        """Return the SharedFeed of a worker, of so many."""
        return SharedFeed(self.plan.feed(rank, world), self.key, self.reader, self.peers)


@dataclass
class SharedFeed:
    """A Feed shared by all workers of a job on a node that have this key, rank and world size.

    taken: number of steps received from the server so far.
    """

    feed: Feed
    key: str
    reader: str
    peers: int
    taken: int = 0

    def steps(self, start: int) -> Rows:
        """Yield the rows of the Feed, as read-only arrays."""
        client, last = StreamClient(self), self.feed.stream.steps
        own: Rows | None = None
        train_seconds: float | None = None
        try:
            for step in range(start, last):
                if step == start:
                    client.request(step, train_seconds)
                columns = client.receive()
                if columns is None:
                    own = own or self.feed.steps(step)
                    columns = next(own)
                else:
                    if own:
                        own.close()
                    own = None
                    self.taken += 1
                if step + 1 < last:
                    client.request(step + 1, train_seconds)
                start_time = monotonic()
                yield columns
                train_seconds = monotonic() - start_time
        finally:
            client.leave()

    @property
    def window_length(self) -> int:
        """Return the steps of a window, which takes as much memory as the Feed itself."""
        return max(2, self.feed.memory // self.feed.stream.step_bytes(len(self.feed.lanes)))

    def server(self) -> Any:
        """Return the server of this job and node, started if there is none."""
        context = ray.get_runtime_context()
        node = context.get_node_id()
        actor = ray.remote(StreamServer).options(
            name=f"{self.key}-{self.feed.rank}-{self.feed.world}-{context.get_job_id()}-{node}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",  # else it would end with its first client
            num_cpus=0,  # it uses those of its clients
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        return actor.remote(self.feed, self.window_length, self.peers)


class StreamClient:
    """A worker's connection to the server of its node. Errors and timeouts of the server become missing steps."""

    def __init__(self, shared: SharedFeed) -> None:
        self._shared, self._retry_time = shared, 0.0
        self._server: Any = None
        self._pending: ObjectRef[Any] | None = None

    def request(self, step: int, train_seconds: float | None) -> None:
        """Request a step. train_seconds: time that the worker spent on its latest step."""
        shared, self._pending = self._shared, None
        if monotonic() >= self._retry_time:
            self._server = self._server or shared.server()
            self._pending = self._server.take.remote(shared.reader, step, shared.feed.stream.steps, train_seconds)

    def receive(self) -> Columns | None:
        """Return the requested step, mapped from the object store; None where the client must prepare it."""
        if self._pending is None:
            return None
        try:
            references = ray.get(self._pending, timeout=TIMEOUT)
            return ray.get(references[0], timeout=TIMEOUT) if references else None
        except RayError as error:
            logger.warning("%s prepares its stream itself: %s", self._shared.reader, error)
            self._server, self._retry_time = None, monotonic() + RETRY_SECONDS
            return None

    def leave(self) -> None:
        if self._server:
            self._server.leave.remote(self._shared.reader)


class StreamServer:
    """Prepares each step of a Feed once, for the workers of a node."""

    def __init__(self, feed: Feed, length: int, peers: int) -> None:
        self._feed, self._length, self._peers = feed, length, peers
        self._steps = 0  # of the longest stream among its clients
        self._window: StepWindow[ObjectRef[Any]] = StepWindow(0, length, peers)
        self._producer: asyncio.Task[None] | None = None
        self._reaper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)  # a Feed is not safe for threads

    async def take(self, reader: str, step: int, steps: int, train_seconds: float | None) -> list[ObjectRef[Any]]:
        """Return a reference to a step's columns, in a list; [] where the client must prepare them.

        steps: of the client's whole stream. train_seconds: time that its worker spent on the latest step.
        """
        self._reaper = self._reaper or asyncio.create_task(self._end_when_idle())
        self._steps = max(self._steps, steps)
        if not self._window.request(reader, step, train_seconds, monotonic()):
            if not self._window.is_empty(monotonic()):
                return []
            self._restart(step)
            self._window.request(reader, step, train_seconds, monotonic())
        if self._producer is None or self._producer.done():
            self._producer = asyncio.create_task(self._produce(self._window))
        while self._window.is_waiting(reader, step):
            if reference := self._window.give(reader):
                self._notify()
                return [reference]
            await self._wait_for_change()
        return []

    async def leave(self, reader: str) -> None:
        self._window.leave(reader)
        self._notify()

    def _restart(self, step: int) -> None:
        """Start a new window at a step; clients that wait in the old one get nothing."""
        if self._producer:
            self._producer.cancel()
        self._window, self._producer = StepWindow(step, self._length, self._peers), None
        self._notify()

    async def _produce(self, window: StepWindow[ObjectRef[Any]]) -> None:
        """Fill a window for as long as clients need more steps."""
        try:
            while window.high < self._steps:
                await self._fill(window)
        except Exception as error:  # its clients will raise it by their own Feeds
            logger.warning("a shared stream ends: %s", error)
            self._restart(0)

    async def _fill(self, window: StepWindow[ObjectRef[Any]]) -> None:
        stream = replace(self._feed.stream, steps=self._steps)
        rows = replace(self._feed, stream=stream).steps(window.high)
        try:
            while reference := await self._in_thread(lambda: _put(rows)):
                since = monotonic()
                while not window.make_room(since, since := monotonic()):
                    await self._wait_for_change(POLL_SECONDS)
                window.push(reference)
                self._notify()
        finally:
            await self._in_thread(rows.close)

    async def _end_when_idle(self) -> None:
        """End this actor once it has had no client for a while."""
        idle = False
        while not (idle and self._window.is_empty(monotonic())):
            idle = self._window.is_empty(monotonic())
            await asyncio.sleep(IDLE_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor)

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _wait_for_change(self, timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _notify(self) -> None:
        """Wake all that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()


def _put(rows: Rows) -> ObjectRef[Any] | None:
    row = next(rows, None)
    return None if row is None else ray.put(row)
