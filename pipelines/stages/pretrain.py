"""The pretrain stage: a Ray Train run of an objective over a stream, exact across kills and numbers of workers."""

import pickle
import shutil
import time

import ray.train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from selfsup import failures
from selfsup.errors import PreemptedError, SelfsupError
from selfsup.pipelines import sharing
from selfsup.pipelines.data.feed import FeedConfig
from selfsup.pipelines.data.shared import SharedFeedConfig
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.batches import Task
from selfsup.redact import redacted
from selfsup.stage import Stage, read_json
from selfsup.whole import write


def pretrain(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Train to the end, from the last checkpoint if there is one; return the summary of the stage.

    Writes `encoder.safetensors` and `method.safetensors` to the stage's folder. Raises an error of selfsup in a worker
    as itself; any other as SelfsupError that names Ray's report.
    """
    shutil.rmtree(stage.folder / "ray", ignore_errors=True)  # Ray's own state is not used: checkpoints are ours
    note = stage.folder / "error.json"
    note.unlink(missing_ok=True)
    _fit(_trainer(planned, stage), stage, planned.run.resources.max_failures)
    if failure := failures.read(note):
        note.unlink()
        raise failure.exception()
    return read_json(stage.folder / "summary.json")


def _trainer(planned: PlannedRun, stage: Stage) -> TorchTrainer:
    run, resources = planned.run, planned.run.resources
    data = planned.train.with_cache(planned.order, cache=int(run.stream.cache * 2**30))
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
    )
    stream = SampleStream(task.manifest, task.order, task.views, task.steps)
    task_bytes, launched = pickle.dumps(task), time.time()
    labels = {"run": planned.title, "study": planned.study or planned.spec, "seed": str(run.seed)}

    def train_loop() -> None:
        # The task as bytes: Ray's controller unpickles this closure, too, and need not import our modules.
        from selfsup.pipelines.stages.worker import work

        work(pickle.loads(task_bytes), launched, labels)

    return TorchTrainer(
        train_loop,
        datasets={"train": lambda: stream},  # type: ignore[dict-item, return-value]  # only FeedConfig sees it
        dataset_config=_data_config(planned, stage),
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_worker_resources(planned),
        ),
        run_config=_run_config(planned, stage),
    )


def _run_config(planned: PlannedRun, stage: Stage) -> RunConfig:
    return RunConfig(
        name=planned.title,
        storage_path=str(stage.folder / "ray"),
        failure_config=FailureConfig(  # type: ignore[call-arg]  # its static type is that of Train v1
            max_failures=planned.run.resources.max_failures, controller_failure_limit=3, max_preemption_failures=-1
        ),
    )


def _fit(trainer: TorchTrainer, stage: Stage, max_failures: int) -> None:
    """Run a trainer. Raises PreemptedError or SelfsupError where it fails."""
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        report, text = stage.folder / "error.txt", failures.plain(str(error))
        write(report, redacted(text))
        last_line = text.rstrip().rpartition("\n")[2]
        reason = f"training failed after {max_failures} restarts: {last_line} (Ray's whole report: {report})"
        kind = PreemptedError if isinstance(error, ray.train.PreemptionError) else SelfsupError
        raise kind(f"{stage.key}: {reason}") from error
    except RayActorError as error:
        raise SelfsupError(
            f"{stage.key}: Ray Train's controller has died (killed, or out of memory); the same command continues"
        ) from error


def _data_config(planned: PlannedRun, stage: Stage) -> FeedConfig:
    """Return the config that gives workers their part of the stream, shared with other runs where there are any."""
    resources, key = planned.run.resources, sharing.stream_key(planned)
    feed = planned.feeder, resources.data_cpus, resources.data_memory * 2**20
    return SharedFeedConfig(*feed, key, stage.key, planned.peers) if key and planned.peers > 1 else FeedConfig(*feed)


def _worker_resources(planned: PlannedRun) -> dict[str, float]:
    """Return the resources of a worker, including the threads that prepare its steps."""
    resources = planned.run.resources
    threads = resources.data_cpus / resources.workers if planned.feeder == "threads" else 0.0
    amounts = {"CPU": resources.cpus_per_worker + threads, "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in amounts.items() if amount}
