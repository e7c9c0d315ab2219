"""Learning curves: encoders that training leaves at due steps are evaluated while it goes on, in the order of steps.

Training waits for nothing of it, and so the tasks ask for no CPU, of which training may have every one, but are as many
as are free; for a GPU only where one is free. The code is that of the final evaluation: only Ray Data, which does not
start without a CPU, is left out. A value is a record in the log of the evaluation's stage, and is never made twice.
Where evaluations fall behind, encoders wait on disk, at most as many as are due, each until it is evaluated; and the
whole objective beside each, where evaluations read its towers.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import numpy as np
import ray

from selfsup import failures, origin
from selfsup.evaluator import numbers
from selfsup.homes import fetch, forget, publish
from selfsup.metrics_log import MetricsLog, records
from selfsup.mirror_index import notes
from selfsup.objects import StorageError
from selfsup.pipelines.cluster.carried import carrying
from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.encoder_source import Columns, Encode, Source
from selfsup.pipelines.stages.evaluate import reading, scored
from selfsup.pipelines.stages.filled import write
from selfsup.pipelines.stages.tasks import spread
from selfsup.pipelines.stages.views import versions_of
from selfsup.pipelines.stages.worker import SNAPSHOTS
from selfsup.sealed import sealed
from selfsup.spec import Run
from selfsup.stage import Stage

POLL = 0.5  # seconds between looks for another encoder
BATCHES = 4  # that a task embeds on a CPU: after each, how many are free is looked at again
BAD = "bad-evaluations.txt"
Loader = Callable[[Columns], Columns]  # numbers of views -> those that can be decoded


@contextmanager
def evaluating(planned: PlannedRun, stage: Stage) -> Iterator[None]:
    """Evaluate the encoders that a training leaves, while the block trains; at its end, those that are left.

    stage: any of the run's; nothing is done for others than its own training.
    """
    if not planned.due or not planned.pretrain or stage.key != planned.pretrain.key:
        yield
        return
    ended, failed = threading.Event(), threading.Event()
    thread = threading.Thread(target=_follow, args=(planned, stage.folder, ended, failed), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        ended.set()
        thread.join()
    forget(stage.folder / SNAPSHOTS)
    rmtree(stage.folder / SNAPSHOTS, ignore_errors=True)


def discard(planned: PlannedRun) -> None:
    """Remove the encoders that wait for evaluations of a training that was stopped, and that no process continues."""
    if planned.pretrain and not planned.pretrain.running:
        forget(planned.pretrain.folder / SNAPSHOTS)
        rmtree(planned.pretrain.folder / SNAPSHOTS, ignore_errors=True)


def logs(planned: PlannedRun) -> list[tuple[Path, str]]:
    """Return the metrics logs that grow while a run trains, each with a prefix that its metrics have in MLflow."""
    stages = (planned.pretrain, *(_frozen(planned).values() if planned.due else ()))
    return [(stage.spool, f"{stage.space}/") for stage in stages if stage]


def _frozen(planned: PlannedRun) -> dict[str, Stage]:
    """Return the stages of the evaluations that are made during training, by name."""
    return {name: probe for name, probe in planned.probes.items() if planned.evals[name].has_curve}


def _follow(planned: PlannedRun, folder: Path, ended: threading.Event, failed: threading.Event) -> None:
    is_last = False
    with suppress(StorageError):
        fetch((probe.folder for probe in _frozen(planned).values()), notes)
    while not is_last:
        is_last = ended.wait(POLL)
        with suppress(StorageError):  # there will be another look
            fetch([folder / SNAPSHOTS])
        for path in sorted((folder / SNAPSHOTS).glob(f"*/{ENCODER}")):
            if failed.is_set():
                return
            if not all(path.with_name(name).exists() for name in planned.leaves):
                break  # the others are on their way
            if (step := int(path.parent.name)) in planned.due:
                with carrying((), folder):
                    evaluate(planned, step, path)
            with suppress(StorageError):
                forget(path.parent)
            rmtree(path.parent, ignore_errors=True)


def evaluate(planned: PlannedRun, step: int, weights: Path) -> None:
    """Record what the evaluations of a run say of its encoder after a step, those that have no record of it yet."""
    missing = {probe.key: name for name, probe in _frozen(planned).items() if _latest(probe) < step}.values()
    for key in dict.fromkeys(planned.embeds[name].key for name in missing):
        names = [name for name in missing if planned.embeds[name].key == key]
        with TemporaryDirectory(dir=weights.parent) as scratch, _failing(planned, names, step):
            _embed(planned, names[0], weights, Path(scratch))
            by_versions = {name: planned.views[name].key if name in planned.views else "" for name in names}
            for versions in dict.fromkeys(by_versions.values()):
                own = [name for name in names if by_versions[name] == versions]
                with _failing(planned, own, step):
                    _score(planned, own, step, weights, Path(scratch))


def _score(planned: PlannedRun, names: Sequence[str], step: int, weights: Path, folder: Path) -> None:
    """Record what evaluations that read the same features, in a folder, and the same versions of samples say."""
    made_by = planned.views.get(names[0])
    if versions := folder / made_by.key if made_by else None:
        versions.mkdir()
        _write(planned, *versions_of(planned, names[0], weights), versions)
    with ThreadPoolExecutor(_free_gpus() or _free_cpus(planned.run)) as pool:
        list(pool.map(lambda name: _record(planned, name, step, folder, versions), names))


@contextmanager
def _failing(planned: PlannedRun, names: Sequence[str], step: int) -> Iterator[None]:
    """Note an error beside the evaluations that it is of: training goes on, and the final evaluation decides."""
    try:
        yield
    except Exception as error:  # an evaluator may raise any
        for name in names:
            origin.claim(probe := planned.probes[name])
            with (probe.folder / BAD).open("a") as file:
                file.write(f"step {step}: {failures.classify(error).reason}\n")


def _embed(planned: PlannedRun, name: str, weights: Path, folder: Path) -> None:
    """Write the features of samples that an evaluation reads."""
    reads, (train, val) = planned.feature(planned.evals[name]), planned.splits(name)
    first = train.num_samples if reads.is_predicted else 0
    source, load, total = reading(planned, weights, reads, train, val, first)
    _write(planned, source, load, total, folder)


def _write(planned: PlannedRun, source: Source, load: Loader, total: int, folder: Path) -> None:
    """Write the features of so many views, by as many tasks at a time as there is room for."""
    batch, gpus = planned.run.embed.batch, _free_gpus()
    task = ray.remote(embed).options(num_cpus=0, num_gpus=min(1, gpus), scheduling_strategy=spread())
    running: list[ray.ObjectRef[None]] = []
    with sealed(folder / "features") as part:
        for samples in spans(total, batch, tasks=gpus):
            while len(running) >= (gpus or _free_cpus(planned.run)):
                done, running = ray.wait(running)
                ray.get(done)
            running.append(task.remote(source, load, samples, batch, part))
        ray.get(running)


def spans(total: int, batch: int, tasks: int) -> list[range]:
    """Return the samples of each of so many tasks; 0: of tasks of BATCHES.

    They are whole batches, the same ones however many tasks there are, and so are the features.
    """
    batches = math.ceil(total / batch)
    span = batch * (math.ceil(batches / tasks) if tasks else BATCHES)
    return [range(start, min(start + span, total)) for start in range(0, total, span)]


def _record(planned: PlannedRun, name: str, step: int, folder: Path, versions: Path | None) -> None:
    with _failing(planned, [name], step), carrying((), folder):
        scores, _ = scored(planned, planned.evals[name], folder, versions, cpus=0, gpus=min(1, _free_gpus()))
        origin.claim(probe := planned.probes[name])
        log = MetricsLog(probe.spool)
        log.append(step, numbers(scores))
        log.commit(step)
        publish(probe.folder)


def embed(source: Source, load: Loader, samples: range, batch: int, folder: Path) -> None:
    """Write the features of some samples to a file, as `embed_splits` does those of all, by this process alone."""
    encode, starts = Encode(source), samples[::batch]
    tables = (encode(load({"id": np.arange(start, min(start + batch, samples.stop))})) for start in starts)
    write(tables, folder / f"{samples.start:012d}.parquet")


def _latest(probe: Stage) -> int:
    """Return the step of the latest value. One without a commit, as a kill leaves it, is dropped and made again."""
    return max((record.step for record in records(probe.spool)), default=0)


def _free_cpus(run: Run) -> int:
    """Return this run's part of the CPUs that nobody asked for, as large as that of those in use; 1 at least."""
    free, total = (resources.get("CPU", 0.0) for resources in (ray.available_resources(), ray.cluster_resources()))  # type: ignore[no-untyped-call]
    own = run.worker_counts[-1] * run.resources.cpus_per_worker + run.resources.data_cpus
    return max(1, int(free * own / max(total - free, own)))


def _free_gpus() -> int:
    return int(ray.available_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
