"""The places where the work of a stage is done: in the slot of its run, else by tasks of the cluster."""

from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.pipelines.cluster import slot
from selfsup.pipelines.cluster.carried import is_carrying
from selfsup.pipelines.cluster.slot import Result, Slot
from selfsup.spec import Run

LARGE = 100_000  # samples for each worker of a slot, above which Ray Data spreads them over the cluster


def called(function: Callable[..., Result], *args: Any, cpus: float, gpus: int) -> Result:
    """Return what a function makes of arguments, in the slot of the run that this thread performs, else in a task."""
    if place := slot_for():
        return place.call(function, *args)
    # SPREAD, as Ray Data's own tasks: where a trial calls, a task goes into the trial's share of the cluster otherwise.
    task = ray.remote(function).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=spread())
    result: Result = ray.get(task.remote(*args))
    return result


def spread() -> Any:
    """Return Ray's strategy for tasks: all nodes, or this one where others may lack the files of a stage."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return here if is_carrying() else "SPREAD"


def slot_for(total: int = 0) -> Slot | None:
    """Return the slot of this run for work on so many samples; None where the cluster does it better, and has room."""
    place = slot.current()
    if (
        not place
        or is_carrying()
        or (total <= LARGE * place.kind.workers[0] and ("GPU" in place.kind.resources or not gpus_of_task()))
    ):
        return place
    place.close()  # it holds what those tasks need
    return None


def cpus_of(run: Run) -> float:
    """Return the CPUs of a task: no more than a worker has, so that what fits the cluster in training fits it here."""
    return min(1.0, run.resources.cpus_per_worker) or 1.0


def gpus_of_task() -> int:
    """Return the GPUs of a task: one where the cluster has any."""
    return 1 if ray.cluster_resources().get("GPU") else 0  # type: ignore[no-untyped-call]
