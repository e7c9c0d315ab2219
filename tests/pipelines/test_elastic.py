"""Runs of as many workers as there is room for: nodes join and leave, samples and curve stay."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from braked import BRAKE, EVERY, STEPS, BrakedBench
from ray.train import ScalingConfig
from ray_nodes import RayNodes, ray_nodes
from sweeping import until

from selfsup.pipelines.cluster.growth import CountedPolicy
from selfsup.pipelines.cluster.slot_server import Answer, SlotKind, SlotServer
from selfsup.pipelines.data.manifest import Manifest
from selfsup.resources import Resources

ELASTIC = {"workers": {"min": 2, "max": 4}, "cpus_per_worker": 0.9, "data_cpus": 0.2}
TOLERANCE = 1e-3


def test_workers_of_a_range_divide_the_lanes() -> None:
    ranged = Resources.model_validate({"workers": {"min": 2, "max": 8}})
    assert [ranged.counts(lanes) for lanes in (4, 8, 12)] == [(2, 4), (2, 4, 8), (2, 3, 4, 6)]
    assert Resources.model_validate({"workers": 3}).counts(8) == (3,)


@pytest.mark.parametrize(
    ("cpus", "spare", "expected"),
    [
        ([4.0], 0.0, 4),
        ([4.0, 2.0], 0.0, 4),
        ([4.0, 4.0], 0.0, 8),
        ([4.0, 4.0], 1.0, 4),
        ([1.5, 1.5], 0.0, 2),
        ([], 0.0, 0),
    ],
)
def test_as_many_workers_as_fit_the_nodes_beside_tasks(
    cpus: list[float], spare: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a CPU of one node; nodes that are gone count no longer."""
    alive = [{"NodeID": str(node), "Alive": True, "Resources": {"CPU": number}} for node, number in enumerate(cpus)]
    gone = {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*alive, gone])
    policy = CountedPolicy(ScalingConfig(num_workers=(2, 8), resources_per_worker={"CPU": 1.0}), (2, 4, 8), spare)
    reserved = {node["NodeID"]: node["Resources"] for node in [*alive, gone]}
    assert policy._count_possible_workers(reserved) == expected


def test_a_slot_waits_for_the_answers_of_the_workers_that_it_has_now(tmp_path: Path) -> None:
    """Two go on from four, whose answers are of no use."""

    async def answers() -> list[Answer]:
        server = SlotServer(SlotKind((2, 4), {"CPU": 1.0}, 0.0, 3, (), tmp_path), tmp_path)
        for rank in range(4):
            await server.join(rank, 4)
        for rank in (1, 2, 3):
            await server.answer(rank, Answer("early", 0))
        waiting = asyncio.ensure_future(server._answered())
        for rank in range(2):
            await server.join(rank, 2)
            await server.answer(rank, Answer(f"late {rank}", 0))
        return await asyncio.wait_for(waiting, 10)

    assert [answer.value for answer in asyncio.run(answers())] == ["late 0", "late 1"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 200), ("val", 60))}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayNodes]:
    with ray_nodes(2, 1, dashboard=False, **{BRAKE: str(tmp_path / "brake")}) as nodes:
        yield nodes


def worlds(nodes: RayNodes) -> list[int]:
    """Return how many training workers live on each node."""
    return [len(node.processes("RayTrainWorker")) for node in nodes.nodes]


@pytest.mark.slow
def test_nodes_join_and_leave_and_the_curve_is_that_of_any_number_of_workers(
    cluster: RayNodes, sets: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """From 2 workers to 4 and back; each step once, with the samples that it always has.

    The digits are those of two workers until there are four; then sums have another order, by 1e-7 of a value. At a
    rate of 0.001 forty steps make 0.1 of that in one process too, by nothing but another last bit of each weight; at
    this one they leave it below 1e-4.
    """
    low = {"train": {"duration": {"steps": 6 * STEPS}}, "optim": {"lr": 1e-5}}
    two = low | {"resources": ELASTIC | {"workers": 2}, "stream": {"feeder": "threads"}}
    alone = BrakedBench(tmp_path_factory.mktemp("alone"), sets, **two).alone(4)
    bench = BrakedBench(tmp_path_factory.mktemp("bench"), sets, **low, resources=ELASTIC).on(cluster)
    (tmp_path / "brake").touch()
    with bench.sweeping() as process:
        bench.trains(process)
        assert sum(worlds(cluster)) == 2
        joined = cluster.join(1)
        until(lambda: sum(worlds(cluster)) == 4, process)
        bench.goes_on(process)
        joined.kill()
        until(lambda: sum(worlds(cluster)) == 2, process)
        bench.goes_on(process)
        (tmp_path / "brake").unlink()
        told, _ = process.communicate()
    assert process.returncode == 0, told
    assert bench.weights().keys() == alone.weights().keys(), "the id is that of any number of workers"
    found, expected = bench.losses(), alone.losses()
    assert found[: EVERY // 2] == expected[: EVERY // 2]
    assert [step for step, _ in found] == [step for step, _ in expected]
    losses, others = (np.array([loss for _, loss in curve]) for curve in (found, expected))
    assert np.std(np.diff(others)) > 30 * TOLERANCE * others.max(), "other samples would be told"
    np.testing.assert_allclose(losses, others, rtol=TOLERANCE)
