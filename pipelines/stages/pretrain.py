"""The pretrain stage: an objective is trained over a stream, in a slot, exact across kills and numbers of workers."""

import time
from functools import partial

import ray.train
from ray.exceptions import RayActorError

from selfsup import codebase, failures
from selfsup.errors import PreemptedError, SelfsupError
from selfsup.homes import following, forget
from selfsup.objects import StorageError
from selfsup.pipelines import lacking, sharing
from selfsup.pipelines.cluster import slot
from selfsup.pipelines.cluster.nodes import fewest_nodes
from selfsup.pipelines.cluster.slot import Job, Slot
from selfsup.pipelines.cluster.slot_server import SlotKind
from selfsup.pipelines.data.feed import FeedPlan
from selfsup.pipelines.data.shared import SharedFeedPlan
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.alone import alone
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.durable import durably
from selfsup.pipelines.stages.worker import work
from selfsup.redact import redacted
from selfsup.stage import Stage, read_json
from selfsup.whole import write


def pretrain(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Train to the end, from the last checkpoint if there is one; return the summary of the stage.

    Writes `encoder.safetensors` and `method.safetensors` to the stage's folder. Raises an error of selfsup in a worker
    as itself; any other as SelfsupError that names Ray's report.
    """
    note = stage.folder / "error.json"
    if note.exists():
        forget(note)
        note.unlink(missing_ok=True)
    with following([stage.folder]):
        if warm := slot.current():
            _fit(warm, planned, stage)
        else:
            with slot.serving(slot_kind(planned), keep=False) as fresh:
                _fit(fresh, planned, stage)
    if failure := failures.read(note):
        note.unlink()
        raise failure.exception()
    return read_json(stage.folder / "summary.json")


def slot_kind(planned: PlannedRun) -> SlotKind:
    """Return the kind of slot that performs a run."""
    resources = planned.run.resources
    runs = {run.id: run for run in map(planned.owner, planned.stages)} | {planned.id: planned}
    code = tuple(sorted({digest for run in runs.values() for digest in _own_code(run)}))
    workers = planned.run.worker_counts
    spare = resources.data_cpus if len(workers) > 1 and planned.feeder == "ray" else 0.0
    return SlotKind(workers, _worker_resources(planned), spare, resources.max_failures, code, planned.home / "slots")


def _worker_resources(planned: PlannedRun) -> dict[str, float]:
    resources = planned.run.resources
    amounts = {"CPU": resources.cpus_per_worker + _threads(planned), "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in amounts.items() if amount}


def _threads(planned: PlannedRun) -> float:
    """Return the CPUs of a worker's threads that prepare its steps."""
    resources = planned.run.resources
    return resources.data_cpus / planned.run.worker_counts[-1] if planned.feeder == "threads" else 0.0


def _own_code(planned: PlannedRun) -> list[str]:
    """Return names and digests of the user's code that a run imports."""
    run, augment = planned.run, planned.augment
    own = {
        "method": codebase.unshipped_digest("methods", run.method) if planned.pretrain else {},
        "trunk": codebase.backbone_digest(run.backbone.name),
    }
    own |= {use: codebase.unshipped_digest("evals", use) for use in {one.use for one in planned.evals.values()}}
    own |= {"augment": codebase.augmentation_digest(augment.use)} if augment else {}
    return [f"{name} {digest}" for name, digest in own.items() if digest]


def _job(planned: PlannedRun, stage: Stage) -> Job:
    run, resources = planned.run, planned.run.resources
    nodes = fewest_nodes(run.worker_counts[0], _worker_resources(planned))
    data = planned.learned.with_cache(planned.order, cache=int(run.stream.cache * 2**30), nodes=nodes)
    task = Task(
        run,
        data,
        planned.order,
        planned.size,
        stage.folder,
        dict(stage.resolved),
        planned.stats,
        planned.taught,
        planned.start,
        planned.due,
        planned.leaves,
        planned.stats_beside,
        lacking.number(run, planned.train),
    )
    masked, key = lacking.masked(run, planned.train), sharing.stream_key(planned)
    stream = SampleStream(task.manifest, task.order, task.views, task.steps, masked)
    own = FeedPlan(stream, planned.feeder, resources.data_cpus, resources.data_memory * 2**20)
    feeds = SharedFeedPlan(own, key, stage.key, planned.peers) if key and planned.peers > 1 else own
    labels = {"run": planned.title, "study": planned.study or planned.spec, "seed": str(run.seed)}
    job = partial(work, task, feeds, time.time(), labels)
    durable = partial(durably, job, stage.folder, [other.folder for other in stage.after], resources.storage_patience)
    return partial(alone, durable, stage.folder)


def _fit(place: Slot, planned: PlannedRun, stage: Stage) -> None:
    """Train in a slot. Raises PreemptedError or SelfsupError where it fails."""
    try:
        answers = place.perform(_job(planned, stage))
        if error := next((answer for answer in answers if isinstance(answer, StorageError)), None):
            raise error
    except ray.train.TrainingFailedError as error:
        report, text = stage.folder / "error.txt", failures.plain(str(error))
        write(report, redacted(text))
        last_line, restarts = text.rstrip().rpartition("\n")[2], planned.run.resources.max_failures
        reason = f"training failed after {restarts} restarts: {last_line} (Ray's whole report: {report})"
        kind = PreemptedError if isinstance(error, ray.train.PreemptionError) else SelfsupError
        raise kind(f"{stage.key}: {reason}") from error
    except RayActorError as error:
        raise SelfsupError(
            f"{stage.key}: Ray Train's controller has died (killed, or out of memory); the same command continues"
        ) from error
