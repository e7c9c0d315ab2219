"""How many runs a cluster holds side by side, found out before any of them starts."""

from collections.abc import Iterable, Mapping
from math import floor

import ray

from selfsup.errors import SpecError
from selfsup.layers import located
from selfsup.pipelines.planned import PlannedRun

TRIAL = {"CPU": 0.0, "node:__internal_head__": 0.001}  # a trial only waits for its run, which may want every CPU


def at_a_time(runs: Iterable[PlannedRun]) -> int:
    """Raises SpecError where one of them could never start, with the resource that is missing."""
    held = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return min((_side_by_side(each, held) for each in runs), default=1)


def _side_by_side(each: PlannedRun, held: Mapping[str, float]) -> int:
    wanted = _wanted(each)
    with located(each.root):
        _check(wanted, held)
    return floor(min(held[name] / amount for name, amount in wanted.items()) + 1e-9)


def _check(wanted: Mapping[str, float], held: Mapping[str, float]) -> None:
    for name, amount in wanted.items():
        if amount > held.get(name, 0.0):
            raise SpecError(
                f"the workers of a run and their data tasks ask for {amount:g} {name}s, the cluster has "
                f"{held.get(name, 0.0):g}: it could never start. Lower resources, or add nodes.",
                "resources",
            )


def _wanted(each: PlannedRun) -> dict[str, float]:
    asked = each.run.resources
    wanted = {
        "CPU": asked.workers * asked.cpus_per_worker + asked.data_cpus,
        "GPU": asked.workers * asked.gpus_per_worker,
    }
    return {name: amount for name, amount in wanted.items() if amount}
