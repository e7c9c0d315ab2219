"""The server of a slot: an actor that starts its Ray Train run, and hands jobs to its workers."""

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from ray import cloudpickle
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, get_device

from selfsup.pipelines.cluster.growth import GROWTH_INTERVAL, SlotTrainer

CLOSED = b""  # in place of a job: there is none any more


class SlotKind(NamedTuple):
    """The traits that the slots of two runs must have in common to be one.

    workers: numbers that it may have, ascending. resources: of a worker. spare: CPUs that a range of workers leaves to
    data tasks. max_failures: times that workers are replaced before a job fails. code: digests of code from outside,
    which workers import once. folder: for Ray Train's files, on all nodes.
    """

    workers: tuple[int, ...]
    resources: dict[str, float]
    spare: float
    max_failures: int
    code: tuple[str, ...]
    folder: Path


class Answer(NamedTuple):
    """The answer of a worker: what it makes of its part of a job. kept: bytes that it does not free."""

    value: Any
    kept: int


class SlotServer:
    """The server of a slot. folder: for Ray Train's files."""

    def __init__(self, kind: SlotKind, folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._number, self._finished, self._job = 0, 0, CLOSED
        self._answers: dict[int, Answer] = {}
        self._joined, self._world = 0, 0
        self._changed = asyncio.Condition()
        self._running: asyncio.Future[Any] | None = None

    async def perform(self, job: bytes) -> tuple[list[Answer], bool]:
        """Return each worker's answer, and whether workers were replaced. Raises Ray Train's error where they end."""
        if not self._running:
            self._running = asyncio.ensure_future(asyncio.to_thread(_trainer(self._kind, self._folder).fit))
        await self._hand(job)
        answered = asyncio.ensure_future(self._answered())
        await asyncio.wait([answered, self._running], return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            self._running.result()
            raise RuntimeError("the workers of a slot ended without an answer")
        return await answered, self._joined > self._world

    async def close(self) -> None:
        """Let the workers end, once they have done what they do."""
        if self._running:
            await self._hand(CLOSED)
            await self._running

    async def join(self, rank: int, world: int) -> None:
        """Note a worker that starts, of so many: it does the current job whether or not one before it did."""
        self._joined += 1
        if world != self._world:
            self._world, self._answers = world, {}
        self._answers.pop(rank, None)

    async def next(self, number: int) -> tuple[int, bytes]:
        """Return the job after a number, and its own number, once there is one that is not finished."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._number > max(number, self._finished))
            return self._number, self._job

    async def answer(self, rank: int, answer: Answer) -> None:
        async with self._changed:
            self._answers[rank] = answer
            self._changed.notify_all()

    async def _hand(self, job: bytes) -> None:
        async with self._changed:
            self._number, self._job, self._answers = self._number + 1, job, {}
            self._changed.notify_all()

    async def _answered(self) -> list[Answer]:
        async with self._changed:
            await self._changed.wait_for(lambda: 0 < self._world == len(self._answers))
            self._finished = self._number
            return [self._answers[rank] for rank in sorted(self._answers)]


def _trainer(kind: SlotKind, folder: Path) -> SlotTrainer:
    server, gpus = ray.get_runtime_context().current_actor, kind.resources.get("GPU", 0)

    def train_loop() -> None:
        serve(server)

    few, many = kind.workers[0], kind.workers[-1]
    starts = 3 if few == many else 3 * (1 + kind.max_failures)  # that may fail: nodes that left are room for a while
    number: Any = {"num_workers": many}
    if few < many:
        number = {"num_workers": (few, many), "elastic_resize_monitor_interval_s": GROWTH_INTERVAL}
    return SlotTrainer(
        train_loop,
        server=server,
        counts=kind.workers,
        spare=kind.spare,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(**number, use_gpu=gpus > 0, resources_per_worker=kind.resources or None),
        run_config=RunConfig(
            name="slot",
            storage_path=str(folder),
            failure_config=FailureConfig(  # type: ignore[call-arg]  # its static type is that of Train v1
                max_failures=kind.max_failures, controller_failure_limit=starts, max_preemption_failures=-1
            ),
        ),
    )


def serve(server: Any) -> None:
    """Do the jobs of a slot, in a worker of it, until there is none any more."""
    context, device, number = ray.train.get_context(), get_device(), 0
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank, world = context.get_world_rank(), context.get_world_size()
    ray.get(server.join.remote(rank, world))
    while True:
        number, job = ray.get(server.next.remote(number))
        if job == CLOSED:
            return
        _forget_peak(device)
        value = cloudpickle.loads(job)(rank, world)
        gc.collect()
        ray.get(server.answer.remote(rank, Answer(value, _kept(device))))


def _forget_peak(device: torch.device) -> None:
    """Let the peak of memory be that of the next job."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _kept(device: torch.device) -> int:
    """Return the bytes of tensors on a GPU, or of this process on a CPU, where Linux tells."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
