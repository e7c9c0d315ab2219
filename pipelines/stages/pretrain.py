"""The pretrain stage: one Ray Train run of an objective over a stream, exact across kill, resume and other workers."""

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
from selfsup.pipelines.data.feed import LaneConfig
from selfsup.pipelines.data.shared import ShareConfig
from selfsup.pipelines.data.stream import Stream
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.worker import Task
from selfsup.redact import redacted
from selfsup.stage import Stage, read_json
from selfsup.whole import write


def pretrain(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Train, or go on training, to the end. Leave `encoder.safetensors` and `method.safetensors` in the stage's folder.

    Raises the user's error that stopped it as itself; any other as SelfsupError that names Ray's report.
    """
    run = planned.run
    data = planned.train.reached(planned.order, cache=int(run.stream.cache * 2**30))
    task = Task(run, data, planned.order, planned.info, stage.folder, dict(stage.resolved))
    stream = Stream(task.manifest, task.order, task.views, task.steps)
    resources = run.resources
    told, launched = pickle.dumps(task), time.time()
    scratch = stage.folder / "ray"  # nothing of what Ray notes there is relied on: checkpoints are our own

    def enter() -> None:
        # A closure with its task in bytes, since Ray's controller unpickles it too: without our imports.
        from selfsup.pipelines.stages.worker import work

        work(pickle.loads(told), launched)

    trainer = TorchTrainer(
        enter,
        datasets={"train": lambda: stream},  # type: ignore[dict-item, return-value]  # only LaneConfig sees it
        dataset_config=_handed(planned, stage),
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_resources(planned),
        ),
        run_config=RunConfig(
            name=stage.key,
            storage_path=str(scratch),
            failure_config=FailureConfig(  # type: ignore[call-arg]  # its static type is that of Train v1
                max_failures=resources.max_failures, controller_failure_limit=3, max_preemption_failures=-1
            ),
        ),
    )
    note = stage.folder / "error.json"
    note.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        report = stage.folder / "error.txt"
        write(report, redacted(str(error)))
        last = str(error).rstrip().rpartition("\n")[2]
        why = f"training failed after {resources.max_failures} restarts: {last} (Ray's whole report: {report})"
        kind = PreemptedError if isinstance(error, ray.train.PreemptionError) else SelfsupError
        raise kind(f"{stage.key}: {why}") from error
    except RayActorError as error:
        raise SelfsupError(
            f"{stage.key}: Ray Train's controller has died (killed, or out of memory); the same command continues"
        ) from error
    if failure := failures.read(note):
        note.unlink()
        raise failure.exception()
    return read_json(stage.folder / "summary.json")


def _handed(planned: PlannedRun, stage: Stage) -> LaneConfig:
    """What the workers get for a data set."""
    asked, key = planned.run.resources, sharing.key(planned)
    told = planned.feeder, asked.data_cpus, asked.data_memory * 2**20
    return ShareConfig(*told, key, stage.key, planned.peers) if key and planned.peers > 1 else LaneConfig(*told)


def _resources(planned: PlannedRun) -> dict[str, float]:
    """Of a worker, with those of its threads."""
    asked = planned.run.resources
    threads = asked.data_cpus / asked.workers if planned.feeder == "threads" else 0.0
    wanted = {"CPU": asked.cpus_per_worker + threads, "GPU": asked.gpus_per_worker}
    return {name: amount for name, amount in wanted.items() if amount}
