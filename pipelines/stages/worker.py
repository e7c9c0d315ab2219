"""A training worker: it builds the objective, follows its steps, logs numbers and saves checkpoints."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn

from selfsup import checkpoint, codebase, encoder, failures, optim, pretrained, saved, tensors
from selfsup.errors import CheckpointError, DataError, ExhaustedError, SelfsupError, SpecError
from selfsup.knob import identity
from selfsup.method import Batch, Method, TrainInfo, load
from selfsup.metrics_log import MetricsLog
from selfsup.modality import chosen, shape_of, views_of
from selfsup.parts import dist, health, norms
from selfsup.pipelines.data.collate import ahead, collate
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.shared import SharedFeed
from selfsup.pipelines.data.stream import Columns
from selfsup.pipelines.stages.gauges import Gauges
from selfsup.pipelines.stages.meter import Meter, StartTimes, hardware
from selfsup.spec import Run
from selfsup.stage import write_json
from selfsup.train import Step, read, train
from selfsup.views import Views
from selfsup.whole import write

DAMAGED = "bad-checkpoints.txt"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The task of every training worker of a run. resolved: the settings that a checkpoint must agree with."""

    run: Run
    manifest: Manifest
    order: SampleOrder
    info: TrainInfo
    folder: Path
    resolved: dict[str, Any]

    @property
    def steps(self) -> int:
        return self.info.num_steps

    @cached_property
    def views(self) -> Views:
        run = self.run
        return views_of(load(run.method).views(run.hyper), run.input, run.backbone)

    @property
    def warmup(self) -> int:
        order = self.order
        return self.run.optim.warmup_steps(batch=order.batch, steps_per_epoch=order.steps_per_epoch)


def work(task: Task, launched: float, labels: Mapping[str, str]) -> None:
    """Train. An error that a restart would only repeat is written to a file, which ends restarts at once.

    labels: of the gauges that show the run.
    """
    note = task.folder / "error.json"
    if note.exists():
        return
    try:
        _work(task, launched, labels)
    except SelfsupError as error:
        failures.write(failures.classify(error), note)
        raise
    except torch.OutOfMemoryError as error:
        advice = "raise train.accumulate, train with train.precision=bf16, or lower train.batch"
        exhausted = ExhaustedError(f"{str(error).partition('. ')[0]}: {advice}")
        failures.write(failures.classify(exhausted), note)
        raise exhausted from error


def _work(task: Task, launched: float, labels: Mapping[str, str]) -> None:
    entered = time.time()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, math.ceil(task.run.resources.cpus_per_worker)))
    check_code(task)
    method = build(task.run, task.info, device)
    module = _parallel(method, task.run.train.norm_groups, task.order.per_lane)
    optimizer = optim.build(method, task.run.optim)
    start = _resumed(task, method, optimizer, device)
    loader = BatchLoader(task, method, device)
    steps = train(
        module,
        method,
        optimizer,
        loader.batches(ray.train.get_dataset_shard("train"), start),
        optim=task.run.optim,
        start=start,
        steps=task.steps,
        warmup_steps=task.warmup,
        batch_size=task.order.batch,
        seed=task.run.seed,
        precision=task.run.train.precision,
        accumulate=task.run.train.accumulate,
    )
    gpus = task.run.resources.workers * task.run.resources.gpus_per_worker
    meter = Meter(task.folder / "cost.json", launched, device, gpus)
    gauges = Gauges(labels)
    Watch(task, loader, method, optimizer, start, meter, gauges).follow(
        steps, StartTimes(launched, entered, time.time())
    )
    if dist.rank() == 0:
        write(task.folder / "hardware.txt", hardware(device))
        tensors.save(method.state_dict(), task.folder / "method.safetensors")
        _save_encoder(task, method)


def _save_encoder(task: Task, method: Method) -> None:
    run, path = task.run, task.folder / "encoder.safetensors"
    shape = shape_of(run.input, run.backbone, task.info.channels)
    name, knobs = chosen(run.input)
    notes = pretrained.notes(name, task.manifest.fields[name], knobs=knobs)
    saved.save_encoder(method.encoder(run.modality), run.backbone, path, shape, notes)


def check_code(task: Task) -> None:
    """Raise SpecError where an objective or a backbone of the user's has changed since the run was planned."""
    method, backbone = task.run.method, task.run.backbone.name
    current: dict[tuple[str, str], dict[str, Any]] = {
        ("method", method): {"hyper": identity(task.run.hyper)} | codebase.unshipped_digest("methods", method),
        ("backbone.name", backbone): codebase.backbone_digest(backbone),
    }
    for (path, name), settings in current.items():
        if any(task.resolved.get(key) != value for key, value in settings.items()):
            changed = f"{name} has changed since the run was planned"
            raise SpecError(f"{changed}; run the same command again: it is another run now", path)


def build(run: Run, info: TrainInfo, device: torch.device) -> Method:
    """Return the objective at its initial weights, a function of spec and seed; the encoder's of backbone and seed."""
    torch.manual_seed(run.seed)
    method = load(run.method)
    trunk = encoder.build(run.backbone, method.initialize, shape_of(run.input, run.backbone, info.channels))
    return method(run.hyper, {run.modality: trunk}, info).to(device)


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


def _parallel(method: Method, norm_groups: int, per_lane: int) -> nn.Module:
    if dist.world_size() > 1 or norm_groups > 1:
        norms.convert(method, norm_groups, per_lane)
    if dist.world_size() == 1:
        return method
    # no device_ids: batches are on the device, but for numbers that the host keeps; buffers are equal everywhere
    return nn.parallel.DistributedDataParallel(method, forward_sync_buffers=False)


class BatchLoader:
    """The batches of one worker; it counts undecodable samples on the way. latest: the batch of the current step."""

    def __init__(self, task: Task, method: Method, device: torch.device) -> None:
        self._task, self._device = task, device
        self._patch = method.encoder(task.run.modality).patch
        self.bad: set[str] = set()
        self.latest: Batch | None = None
        self.waited = 0.0  # seconds, for the feed
        self._feed: Feed | SharedFeed | None = None

    def counted(self) -> dict[str, float]:
        shared = {"shared_steps": float(self._feed.taken)} if isinstance(self._feed, SharedFeed) else {}
        return {"bad_samples": float(len(self.bad))} | shared

    def batches(self, feed: Feed | SharedFeed, start: int) -> Iterator[Batch]:
        task, self._feed = self._task, feed
        self.bad = self._earlier(restored=start > 0)
        for step, columns in enumerate(ahead(self._timed(feed.steps(start)), self._device), start):
            self._count(set(columns.pop("bad")))
            self.latest = collate(
                columns,
                task.views,
                seed=task.run.seed,
                step=step,
                patch=self._patch,
                stats=task.manifest.fields,
                device=self._device,
            )
            yield self.latest

    def _timed(self, rows: Iterator[Columns]) -> Iterator[Columns]:
        """Yield the rows, and add up the time that each takes to come."""
        began = time.perf_counter()
        for row in rows:
            self.waited += time.perf_counter() - began
            yield row
            began = time.perf_counter()

    @property
    def _list(self) -> Path:
        return self._task.folder / f"bad-{dist.rank()}.txt"

    def _earlier(self, *, restored: bool) -> set[str]:
        """Return the names of undecodable samples from before an interruption."""
        if not restored:
            self._list.unlink(missing_ok=True)
        return set(self._list.read_text().splitlines()) if self._list.exists() else set()

    def _count(self, names: set[str]) -> None:
        """Note undecodable samples. Raises DataError for a larger share of the data set than `stream.bad_share`."""
        if not (new := names - self.bad):
            return
        self.bad |= new
        task, share = self._task, self._task.run.stream.bad_share
        with self._list.open("a") as file:
            file.writelines(f"{name}\n" for name in sorted(new))
        logger.warning("%s: replaced samples that cannot be decoded: %s", task.manifest.root, ", ".join(sorted(new)))
        if len(self.bad) > share * task.manifest.num_samples:
            raise DataError(
                f"{task.manifest.root}: {len(self.bad)} of {task.manifest.num_samples} samples cannot be decoded, more "
                f"than stream.bad_share: {share} allows; among them {sorted(self.bad)[:3]}. "
                "Run `selfsup shards check` on it."
            )


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
            if not (log or save):
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
            self._gauges.set(values)

    @torch.no_grad()
    def _health(self) -> dict[str, float]:
        """Return label-free signs of collapse, of the embeddings that evaluation would see."""
        assert self._loader.latest is not None
        trunk = self._method.encoder(self._task.run.modality)
        trunk.eval()
        embedding = dist.gather(trunk.pooled(self._loader.latest.views[0].value))
        trunk.train()
        return {"feature_std": float(health.feature_std(embedding)), "rankme": float(health.rankme(embedding))}

    def _save(self, number: int) -> None:
        if self._metrics_log is None:
            return
        checkpoint.save(
            self._task.folder,
            step=number,
            module=self._method,
            optimizer=self._optimizer,
            resolved=self._task.resolved,
            keep=self._task.run.train.keep_checkpoints,
        )
        self._metrics_log.commit(number)
