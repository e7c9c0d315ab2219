"""A training worker: it builds the objective, follows its steps, logs numbers and saves checkpoints."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device
from torch import nn

from selfsup import checkpoint, codebase, failures, optim, pretrained, saved, sharded, tensors
from selfsup.errors import CheckpointError, ExhaustedError, SelfsupError, SpecError
from selfsup.homes import mirror_of
from selfsup.input_kinds import shape_of
from selfsup.knob import identity
from selfsup.method import Batch, Method
from selfsup.metrics_log import MetricsLog
from selfsup.parts import dist, health, norms, units
from selfsup.pipelines.data.feed import Feed, FeedPlan
from selfsup.pipelines.data.shared import SharedFeed, SharedFeedPlan
from selfsup.pipelines.objective import ENCODER, METHOD, build
from selfsup.pipelines.stages.batches import BatchLoader, Task
from selfsup.pipelines.stages.gauges import Gauges
from selfsup.pipelines.stages.meter import Meter, StartTimes, hardware
from selfsup.sections import Train
from selfsup.stage import write_json
from selfsup.train import Step, read, train
from selfsup.whole import write

DAMAGED = "bad-checkpoints.txt"
SNAPSHOTS = "snapshots"  # folder of encoders to be evaluated while training goes on


def work(
    task: Task, feeds: FeedPlan | SharedFeedPlan, launched: float, labels: Mapping[str, str], rank: int, world: int
) -> None:
    """Train. An error that a restart would only repeat is written to a file, which ends restarts at once.

    launched: time of the launch, in seconds since 1970. labels: of the gauges that show the run.
    """
    note = task.folder / "error.json"
    if note.exists():
        return
    try:
        _work(task, feeds.feed(rank, world), launched, labels)
    except SelfsupError as error:
        failures.write(failures.classify(error), note)
        raise
    except torch.OutOfMemoryError as error:
        advice = "raise train.accumulate, train with train.precision=bf16, or lower train.batch"
        exhausted = ExhaustedError(f"{str(error).partition('. ')[0]}: {advice}")
        failures.write(failures.classify(exhausted), note)
        raise exhausted from error


def _work(task: Task, feed: Feed | SharedFeed, launched: float, labels: Mapping[str, str]) -> None:
    entered = time.time()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, math.ceil(task.run.resources.cpus_per_worker)))
    check_code(task)
    method = build(task.run, task.info, device, teacher=task.teacher, start=task.start)
    _convert(method, task.run.train)
    optimizer = optim.build(method, task.run.optim)
    start = _resumed(task, method, optimizer, device)
    module = _parallel(method, optimizer, task.run.train)
    loader = BatchLoader(task, method, device)
    batches = loader.batches(feed, start)
    steps = _steps(task, module, method, optimizer, batches, start)
    gpus = dist.world_size() * task.run.resources.gpus_per_worker
    meter = Meter(task.folder / "cost.json", launched, device, gpus)
    gauges = Gauges(labels)
    Watch(task, loader, method, optimizer, start, meter, gauges).follow(
        steps, StartTimes(launched, entered, time.time())
    )
    if dist.rank() == 0:
        write(task.folder / "hardware.txt", hardware(device))
    save_method(method, task.folder / METHOD)
    save_encoder(task, method, task.folder / ENCODER)


def _steps(
    task: Task,
    module: nn.Module,
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    start: int,
) -> Iterator[Step]:
    """Return the steps of a task from `start` on."""
    settings = task.run.train
    return train(
        module,
        method,
        optimizer,
        batches,
        optim=task.run.optim,
        start=start,
        steps=task.steps,
        warmup_steps=task.warmup,
        batch_size=task.order.batch,
        seed=task.run.seed,
        precision=settings.precision,
        accumulate=settings.accumulate,
    )


def save_method(method: Method, path: Path) -> None:
    """Write the weights of a method to a file, as `save_encoder`."""
    weights = sharded.whole(method.state_dict())
    if dist.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors.save(weights, path)


def save_encoder(task: Task, method: Method, path: Path) -> None:
    """Write the encoder of a method to a file, atomically: the first worker, of the parts of all, who call it."""
    run = task.run
    weights = sharded.whole(method.encoder(run.modality).trunk.state_dict())
    if dist.rank() == 0:
        kinds = run.kinds
        shape = shape_of(kinds, run.backbone, task.info.channels)
        path.parent.mkdir(parents=True, exist_ok=True)
        saved.save_weights(
            weights, run.backbone, path, shape, pretrained.notes(kinds.name, task.stats, knobs=kinds.knobs)
        )


def snapshot(folder: Path, step: int) -> Path:
    """Return the file of the encoder after a step, in the folder of a training."""
    return folder / SNAPSHOTS / f"{step:09d}" / ENCODER


def check_code(task: Task) -> None:
    """Raise SpecError where a method, backbone or augmentation of the user's has changed since the run was planned."""
    method, backbone, use = task.run.method, task.run.backbone.name, task.augment.use if task.augment else ""
    current: dict[tuple[str, str], dict[str, Any]] = {
        ("method", method): {"hyper": identity(task.run.hyper)} | codebase.unshipped_digest("methods", method),
        ("backbone.name", backbone): codebase.backbone_digest(backbone),
        ("augment.use", use): codebase.augmentation_digest(use),
    }
    for (path, name), settings in current.items():
        if any(task.resolved.get(key) != value for key, value in settings.items()):
            changed = f"{name} has changed since the run was planned"
            raise SpecError(f"{changed}; run the same command again: it is another run now", path)


def _resumed(task: Task, method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Restore the latest checkpoint and return its step, 0 without one. Damaged ones are listed in DAMAGED.

    Raises CheckpointError also where the workers do not find the same one.
    """
    step, damaged = checkpoint.resume(task.folder, module=method, optimizer=optimizer, resolved=task.resolved)
    if step != (first := int(dist.first(torch.tensor(step, device=device)))):
        raise CheckpointError(
            f"{task.folder}: worker {dist.rank()} finds the checkpoint of step {step} there, the first worker that of "
            f"{first}; SELFSUP_HOME must be one folder that all nodes share"
        )
    if damaged and dist.rank() == 0:
        with (task.folder / DAMAGED).open("a") as file:
            file.writelines(f"{line}\n" for line in damaged)
    return step


def _convert(method: Method, settings: Train) -> None:
    """Change layers of a method, in place, as the settings ask; weights, and their names, stay."""
    if dist.world_size() > 1 or settings.norm_groups > 1:
        norms.convert(method, settings.norm_groups, settings.batch // settings.norm_groups)
    if settings.pack_crops:
        method.backbone.pack()
    if settings.checkpoint_activations:
        units.recompute(method)
    if settings.compile:
        units.compile_units(method)


def _parallel(method: Method, optimizer: torch.optim.Optimizer, settings: Train) -> nn.Module:
    """Return the module whose gradients are those of all workers."""
    if dist.world_size() == 1:
        return method
    if settings.sharding == "fsdp":
        sharded.shard(method, optimizer)
        return method
    # no device_ids: batches are on the device, but for numbers that the host keeps; buffers are equal everywhere
    return nn.parallel.DistributedDataParallel(method, forward_sync_buffers=False)


class Watch:
    """An observer of the steps of one worker: it writes numbers to the log, and states to checkpoints."""

    def __init__(
        self,
        task: Task,
        loader: BatchLoader,
        method: Method,
        optimizer: torch.optim.Optimizer,
        start: int,
        meter: Meter,
        gauges: Gauges,
    ) -> None:
        self._task, self._loader, self._method, self._optimizer = task, loader, method, optimizer
        self._start, self._meter, self._gauges = start, meter, gauges
        self._metrics_log = MetricsLog(task.folder / "metrics.jsonl", restored=start) if dist.rank() == 0 else None

    def follow(self, steps: Iterator[Step], began: StartTimes) -> None:
        settings, total = self._task.run.train, self._task.steps
        spent: dict[str, float] = {}
        since, seen, waited = time.time(), self._start, self._loader.waited
        for step in steps:
            spent = spent or began.durations(time.time())
            log, save = (
                step.number == total or step.number % every == 0
                for every in (settings.log_every, settings.checkpoint_every)
            )
            due = step.number in self._task.due
            if not (log or save or due):
                continue
            if settings.norm_groups > 1:
                norms.average_statistics(self._method)
            values = read(step)  # before saving, too: no state that is not finite becomes a checkpoint
            if log:
                now = time.time()
                wait = (self._loader.waited - waited) / (now - since)
                rate = (step.number - seen) * self._task.order.batch / (now - since)
                self._log(step.number, values, rate=rate, wait=wait)
                since, seen, waited = now, step.number, self._loader.waited
            if due:
                self._leave(step.number)
            if save:
                self._save(step.number)
        numbers = spent | self._meter.read() | self._loader.counted()
        if self._metrics_log:
            write_json(self._task.folder / "summary.json", numbers)

    def _log(self, number: int, values: dict[str, float], *, rate: float, wait: float) -> None:
        values |= {"samples_per_second": rate, "input_wait": wait} | self._loader.counted() | self._health()
        self._meter.read()
        if self._metrics_log:
            self._metrics_log.append(number, values)
            self._gauges.set(values | self._meter.gpu_use())

    @torch.no_grad()
    def _health(self) -> dict[str, float]:
        """Return label-free signs of collapse, of the embeddings that evaluation would see."""
        assert self._loader.latest is not None
        trunk = self._method.encoder(self._task.run.modality)
        trunk.eval()
        with sharded.gathered(self._method):
            view = self._loader.latest.views[0]
            has = dist.gather(view.box[:, -1]) > 0
            embedding = dist.gather(trunk.pooled(view.value))[has]
        trunk.train()
        return {"feature_std": float(health.feature_std(embedding)), "rankme": float(health.rankme(embedding))}

    def _leave(self, number: int) -> None:
        """Leave the encoder to be evaluated. Before a checkpoint, so that none is missing after a kill."""
        path = snapshot(self._task.folder, number)
        save_encoder(self._task, self._method, path)
        if METHOD in self._task.leaves:
            save_method(self._method, path.with_name(METHOD))

    def _save(self, number: int) -> None:
        states = {"module": self._method.state_dict(), "optimizer": self._optimizer.state_dict()}
        checkpoint.save(
            self._task.folder,
            step=number,
            resolved=self._task.resolved,
            keep=self._task.run.train.keep_checkpoints,
            **(sharded.whole(states) if mirror_of(self._task.folder) else states),  # nodes share no folder there
        )
        if self._metrics_log:
            self._metrics_log.commit(number)
        if len(self._task.run.worker_counts) > 1:
            ray.train.report({})  # that workers may grow in number now
