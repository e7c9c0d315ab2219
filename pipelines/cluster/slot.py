"""Slots: Ray Train runs that do one job after another, so that processes, their group and what they imported stay warm.

A slot has the resources of a run. Its workers ask its server for jobs: a training, and the evaluations that follow. A
worker that dies is replaced by Ray Train, with all others of its slot, and they do the job again from its start, which
for a training is its last checkpoint. A slot whose workers were replaced, or keep memory that its runs no longer need,
does no job for another run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import ray
import torch
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from threadpoolctl import threadpool_limits

from selfsup.errors import SelfsupError
from selfsup.pipelines.cluster.carried import carried, collect
from selfsup.pipelines.cluster.slot_server import SlotKind, SlotServer
from selfsup.scratch import scratch

CLOSING = 10.0  # seconds that workers have to end by themselves
LEAK = 2**30  # bytes that workers may keep beyond what they kept after their first job
Job = Callable[[int, int], Any]  # of the rank of a worker and their number
Result = TypeVar("Result")


class Slot:
    """A slot, which starts with its first job. is_worn: whether it must not be used for another run."""

    def __init__(self, kind: SlotKind) -> None:
        self.kind, self.is_worn, self._is_over = kind, False, False
        self._opened = ExitStack()
        self._server: Any = None
        self._kept: list[int] = []

    def perform(self, job: Job) -> list[Any]:
        """Return what each worker makes of a job. Raises TrainingFailedError where it fails in every attempt."""
        if self._is_over:
            raise SelfsupError("the run was stopped; the same command continues")
        self._server = self._server or self._open()
        pickled: bytes = cloudpickle.dumps(job)  # type: ignore[no-untyped-call]
        try:
            answers, was_replaced = ray.get(self._server.perform.remote(pickled))
        except RayTaskError as error:
            raise error.cause from error
        kept = [answer.kept for answer in answers]
        self._kept = self._kept or kept
        has_grown = any(now > before + LEAK for now, before in zip(kept, self._kept, strict=False))
        self.is_worn = self.is_worn or was_replaced or has_grown
        return [answer.value for answer in answers]

    def share(self, function: Callable[[int, int], Result]) -> list[Result]:
        """Return each worker's part of a piece of work in which none waits for another; raise an error of any."""
        parts = self.perform(partial(_caught, carried(function)))
        collect()
        if error := next((error for _, error in parts if error), None):
            raise error
        return [value for value, _ in parts]

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return what the first worker makes of a function's arguments; raise its error."""
        return self.share(partial(_first, function, args))[0]  # type: ignore[return-value]

    def close(self, *, at_once: bool = False) -> None:
        """End the workers and free their resources; another job starts others. at_once: whatever they do, for good."""
        self._is_over = self._is_over or at_once
        server, self._server, self._kept = self._server, None, []
        if server:
            with suppress(RayError):
                if not at_once:
                    ray.get(server.close.remote(), timeout=CLOSING)
            ray.kill(server)
        self._opened.close()

    def _open(self) -> Any:
        folder = self._opened.enter_context(scratch(self.kind.folder))
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        return ray.remote(SlotServer).options(num_cpus=0, label_selector=here).remote(self.kind, folder)


def _caught(function: Callable[[int, int], Result], rank: int, world: int) -> tuple[Result | None, Exception | None]:
    """-> what a worker makes of its part, or why it does not: workers go on after an error that is of no training"""
    torch.set_num_threads(1)  # as a task has: digits may depend on it
    try:
        with threadpool_limits(1):
            return function(rank, world), None
    except Exception as error:
        return None, error


def _first(function: Callable[..., Result], args: tuple[Any, ...], rank: int, _: int) -> Result | None:
    return None if rank else function(*args)


_current: ContextVar[Slot | None] = ContextVar("slot", default=None)
_busy: list[Slot] = []  # of this process
_idle: list[Slot] = []  # of this process: one at most


def current() -> Slot | None:
    """Return the slot of the run that this thread performs; None where it has none."""
    return _current.get()


@contextmanager
def serving(kind: SlotKind, *, keep: bool) -> Iterator[Slot]:
    """Inside the block, give this thread a slot: the one that this process keeps, where it is of that kind.

    keep: for the next block, unless it is worn, or the block raises an error, so that a part of the work may go on.
    """
    slot = _taken(kind)
    before = _current.set(slot)
    _busy.append(slot)
    try:
        yield slot
    except BaseException:
        slot.close(at_once=True)
        raise
    finally:
        _busy.remove(slot)
        _current.reset(before)
    if keep and not slot.is_worn and not _idle:
        _idle.append(slot)
    else:
        slot.close()


def _taken(kind: SlotKind) -> Slot:
    if _idle and _idle[0].kind == kind:
        return _idle.pop()
    close_idle()
    return Slot(kind)


def close_idle() -> None:
    """End the slot that this process keeps for another run, if there is one."""
    while _idle:
        _idle.pop().close()


def close_busy() -> None:
    """End the workers of every slot of this process that performs a run, which fails by that."""
    for slot in [*_busy]:
        slot.close(at_once=True)
