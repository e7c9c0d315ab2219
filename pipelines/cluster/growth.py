"""Slots of as many workers as there is room for: Ray Train's elastic policy, held to numbers that divide the lanes.

A slot that loses workers goes on with as many as are left room for, and grows once a training has saved a checkpoint,
so that next to nothing is done twice.
"""

from collections.abc import Mapping
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)

from selfsup.pipelines.cluster.nodes import room

GROWTH_INTERVAL = 30.0  # seconds between looks for more room, since to start workers anew takes some, too


class CountedPolicy(ElasticScalingPolicy):
    """A policy of some numbers of workers. spare: CPUs of the cluster that they leave to tasks."""

    def __init__(self, scaling_config: Any, counts: tuple[int, ...], spare: float) -> None:
        super().__init__(scaling_config)
        self._counts, self._spare = counts, spare

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Grow where workers have just reported, which they do after a checkpoint."""
        self._maybe_send_resource_request()  # type: ignore[no-untyped-call]
        if not any(worker.training_report for worker in worker_group_status.worker_statuses.values()):
            return NoopDecision()
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        grows = isinstance(decision, ResizeDecision) and decision.num_workers > worker_group_state.num_workers
        return decision if grows else NoopDecision()

    def _count_possible_workers(self, reserved_resources: Mapping[str, Mapping[str, float]]) -> int:
        """Return the largest of the numbers that fits the nodes that are alive; 0 for none."""
        needs = self.scaling_config._resources_per_worker_not_none
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        fit = sum(room(resources, needs) for node, resources in reserved_resources.items() if node in alive)
        if cpus := needs.get("CPU"):
            total = sum(resources.get("CPU", 0.0) for resources in alive.values())
            fit = min(fit, room({"CPU": total - self._spare}, {"CPU": cpus}))
        return max((number for number in self._counts if number <= fit), default=0)


class ServedOnly(ControllerCallback):
    """A guard of the room of a slot that is closed, whose controller may outlive its server by a second.

    Workers that it replaced then would never end, and their placement group would stay as long as the driver.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> None:  # noqa: ARG002
        """Raise RayActorError where the server has ended."""
        ray.get(self._server.__ray_ready__.remote())


class SlotTrainer(TorchTrainer):
    """A TorchTrainer whose workers are as many as one of some numbers says. spare: as of CountedPolicy.

    server: of the slot, an actor.
    """

    def __init__(self, *args: Any, server: Any, counts: tuple[int, ...], spare: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._server, self._counts, self._spare = server, counts, spare

    def _create_default_callbacks(self) -> list[Any]:
        return [*super()._create_default_callbacks(), ServedOnly(self._server)]  # type: ignore[misc]  # as below

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        if len(self._counts) > 1:
            options["scaling_policy"] = CountedPolicy(self.scaling_config, self._counts, self._spare)
        return super()._initialize_and_run_controller(**options)  # type: ignore[misc]  # its static type is that of Train v1
