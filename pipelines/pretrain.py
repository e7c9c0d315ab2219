"""The pretrain stage: one Ray Train run of an objective over a stream, exact across kill, resume and a change of workers."""

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import save_file
from torch import nn

from selfsup import checkpoint, encoder, errors, optim
from selfsup.errors import DataError, SelfsupError
from selfsup.method import Batch, Method, load
from selfsup.parts import dist, health
from selfsup.pipelines.collate import collate
from selfsup.pipelines.lanes import Lanes
from selfsup.pipelines.manifest import Manifest
from selfsup.pipelines.stream import Feed, LaneConfig, Stream
from selfsup.pipelines.views import Views, sized
from selfsup.plan import Planned, Stage, write_json
from selfsup.spec import Run
from selfsup.track import Spool
from selfsup.train import Step, read, train

MODALITY = "image"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What every training worker is told."""

    run: Run
    manifest: Manifest
    order: Lanes
    steps: int
    folder: Path
    resolved: dict[str, Any]

    @property
    def views(self) -> Views:
        method = load(self.run.method)
        return sized(method.views(self.run.hyper), self.run.backbone.image_size)

    @property
    def warmup(self) -> int:
        warmup, order = self.run.optim.warmup, self.order
        return warmup.steps_of(batch=order.batch, steps_per_epoch=order.steps_per_epoch) if warmup else 0


def pretrain(planned: Planned, stage: Stage) -> dict[str, float]:
    """Train, or go on training, to the end. Leaves `encoder.safetensors` and `method.safetensors` in the stage's folder.

    Raises the user's error that stopped it as itself; any other as SelfsupError with Ray's report.
    """
    run = planned.run
    task = Task(run, planned.train, planned.order, planned.steps, stage.folder, dict(stage.resolved))
    stream = Stream(task.manifest, task.order, task.views, task.steps)
    resources = run.resources
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task, "launched": time.time()},
        datasets={"train": lambda: stream},
        dataset_config=LaneConfig(resources.data_cpus),
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_resources(run),
        ),
        run_config=RunConfig(
            name=stage.key,
            storage_path=str(stage.folder.parent),
            failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=run.train.keep_checkpoints),
        ),
    )
    note = stage.folder / "error.json"
    note.unlink(missing_ok=True)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise SelfsupError(f"{stage.key}: training failed after {resources.max_failures} restarts: {error}") from error
    if note.exists():
        raise _told(note)
    return dict(json.loads((stage.folder / "summary.json").read_text()))


def _resources(run: Run) -> dict[str, float]:
    wanted = {"CPU": run.resources.cpus_per_worker, "GPU": run.resources.gpus_per_worker}
    return {name: amount for name, amount in wanted.items() if amount}


def _kind(error: SelfsupError) -> str:
    """The name of our class; Ray raises a task's error as a class of its own beside it."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("selfsup."))


def _told(note: Path) -> SelfsupError:
    told = json.loads(note.read_text())
    note.unlink()
    kind = getattr(errors, told["kind"], SelfsupError)
    return kind(told["message"])


def work(config: dict[str, Any]) -> None:
    """What a training worker does. A mistake of the user's is noted, so that a restart ends at once instead of repeating it."""
    task: Task = config["task"]
    note = task.folder / "error.json"
    if note.exists():
        return
    try:
        _work(task, config["launched"])
    except SelfsupError as error:
        write_json(note, {"kind": _kind(error), "message": str(error)})
        raise


def _work(task: Task, launched: float) -> None:
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, math.ceil(task.run.resources.cpus_per_worker)))
    method = build(task.run, device)
    module = _parallel(method, device)
    optimizer = optim.build(method, task.run.optim)
    start = 0
    if held := ray.train.get_checkpoint():
        with held.as_directory() as folder:
            start = checkpoint.load(Path(folder), module=method, optimizer=optimizer, resolved=task.resolved)
    intake = Intake(task, method, device)
    steps = train(
        module,
        method,
        optimizer,
        intake.batches(ray.train.get_dataset_shard("train"), start),
        optim=task.run.optim,
        start=start,
        steps=task.steps,
        warmup_steps=task.warmup,
        batch_size=task.order.batch,
        seed=task.run.seed,
        precision=task.run.train.precision,
        accumulate=task.run.train.accumulate,
    )
    Watch(task, intake, method, optimizer, start).follow(steps, launched)
    if dist.rank() == 0:
        save_file(method.state_dict(), task.folder / "method.safetensors")
        encoder.save_encoder(method.encoder(MODALITY), task.run.backbone, task.folder / "encoder.safetensors")


def build(run: Run, device: torch.device) -> Method:
    """The objective at its initial weights: a function of the spec and the seed, the encoder of backbone and seed alone."""
    torch.manual_seed(run.seed)
    trunk = encoder.build(run.backbone)
    return load(run.method)(run.hyper, {MODALITY: trunk}).to(device)


def _parallel(method: Method, device: torch.device) -> nn.Module:
    if dist.world_size() == 1:
        return method
    dist.convert(method)
    return nn.parallel.DistributedDataParallel(method, device_ids=[device] if device.type == "cuda" else None)


class Intake:
    """The batches of one worker, and what became known of them on the way."""

    def __init__(self, task: Task, method: Method, device: torch.device) -> None:
        trunk = method.encoder(MODALITY)
        self._task, self._device = task, device
        self._patch = trunk.patch if isinstance(trunk, encoder.TokenEncoder) else None
        self.bad: set[str] = set()
        self.latest: Batch | None = None

    def batches(self, feed: Feed, start: int) -> Iterator[Batch]:
        task = self._task
        for columns in feed.steps(start):
            self._count(set(columns.pop("bad")))
            self.latest = collate(
                columns,
                task.views,
                seed=task.run.seed,
                patch=self._patch,
                mean=task.manifest.mean,
                std=task.manifest.std,
                device=self._device,
            )
            yield self.latest

    def _count(self, names: set[str]) -> None:
        """Raises DataError once more than the stated share of the data set is found undecodable."""
        if not (new := names - self.bad):
            return
        self.bad |= new
        task, share = self._task, self._task.run.stream.bad_share
        with (task.folder / f"bad-{dist.rank()}.txt").open("a") as file:
            file.writelines(f"{name}\n" for name in sorted(new))
        logger.warning("%s: replaced samples that cannot be decoded: %s", task.manifest.root, ", ".join(sorted(new)))
        if len(self.bad) > share * task.manifest.num_samples:
            raise DataError(
                f"{task.manifest.root}: {len(self.bad)} of {task.manifest.num_samples} samples cannot be decoded, more than "
                f"stream.bad_share: {share} allows; among them {sorted(self.bad)[:3]}. Run `selfsup shards check` on it."
            )


class Watch:
    """Follows the steps of one worker: numbers into the spool, states into checkpoints."""

    def __init__(self, task: Task, intake: Intake, method: Method, optimizer: torch.optim.Optimizer, start: int):
        self._task, self._intake, self._method, self._optimizer, self._start = task, intake, method, optimizer, start
        self._spool = Spool(task.folder / "metrics.jsonl", restored=start) if dist.rank() == 0 else None

    def follow(self, steps: Iterator[Step], launched: float) -> None:
        train = self._task.run.train
        began, first, seen = time.time(), 0.0, self._start
        for step in steps:
            first = first or time.time() - launched
            last = step.number == self._task.steps
            if last or step.number % train.log_every == 0:
                now = time.time()
                rate = (step.number - seen) * self._task.order.batch / (now - began)
                self._log(step, rate)
                began, seen = now, step.number
            if last or step.number % train.checkpoint_every == 0:
                read(step)
                self._save(step.number)
        if self._spool:
            summary = {"start_seconds": first, "seconds": time.time() - launched, "bad_samples": len(self._intake.bad)}
            write_json(self._task.folder / "summary.json", summary)

    def _log(self, step: Step, rate: float) -> None:
        values = read(step)
        values |= {"images_per_second": rate, "bad_samples": float(len(self._intake.bad))}
        values |= self._health()
        if self._spool:
            self._spool.append(step.number, values)

    @torch.no_grad()
    def _health(self) -> dict[str, float]:
        """Label-free signs of collapse, of the embedding as evaluation would see it."""
        assert self._intake.latest is not None
        trunk = self._method.encoder(MODALITY)
        trunk.eval()
        embedding = dist.gather(trunk.pooled(self._intake.latest.views[0]))
        trunk.train()
        return {"feature_std": float(health.feature_std(embedding)), "rankme": float(health.rankme(embedding))}

    def _save(self, number: int) -> None:
        if self._spool is None:
            ray.train.report({"step": number})
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(
                Path(folder),
                step=number,
                module=self._method,
                optimizer=self._optimizer,
                resolved=self._task.resolved,
            )
            ray.train.report({"step": number}, checkpoint=ray.train.Checkpoint.from_directory(folder))
        self._spool.commit(number)
