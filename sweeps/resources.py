"""The number of runs that a cluster holds side by side, determined before any of them starts."""

from collections.abc import Iterable, Mapping

import ray

from selfsup.errors import SpecError
from selfsup.layers import located
from selfsup.pipelines.cluster.nodes import room
from selfsup.pipelines.planned import PlannedRun


def beside_command() -> dict[str, float]:
    """Return what a trial asks for: the node of this command, with which it ends, and no CPU, since it only waits."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return {"CPU": 0.0, f"node:{address}": 0.001}


def at_a_time(runs: Iterable[PlannedRun]) -> int:
    """Return how many fit. Raises SpecError where one could never start, with the missing resource."""
    available = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return min((_side_by_side(run, available) for run in runs), default=1)


def _side_by_side(run: PlannedRun, available: Mapping[str, float]) -> int:
    fewest, most = (_needs(run, run.run.worker_counts[end]) for end in (0, -1))
    with located(run.root):
        _check_fits(fewest, available)
    return max(1, room(available, most))


def _check_fits(needs: Mapping[str, float], available: Mapping[str, float]) -> None:
    for name, amount in needs.items():
        if amount > available.get(name, 0.0):
            raise SpecError(
                f"the workers of a run and their data tasks ask for {amount:g} {name}s, the cluster has "
                f"{available.get(name, 0.0):g}: it could never start. Lower resources, or add nodes.",
                "resources",
            )


def _needs(run: PlannedRun, workers: int) -> dict[str, float]:
    resources = run.run.resources
    needs = {
        "CPU": workers * resources.cpus_per_worker + resources.data_cpus,
        "GPU": workers * resources.gpus_per_worker,
    }
    return {name: amount for name, amount in needs.items() if amount}
