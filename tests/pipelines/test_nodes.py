"""Runs on a Ray cluster of three nodes: the digits of one node, with work on all three."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from braked import BrakedBench, same_digits
from ray_nodes import RayNodes, ray_nodes

from selfsup.pipelines.data.manifest import Manifest

pytestmark = pytest.mark.slow  # each run takes a minute
ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
FEW = {"duration": {"steps": 12}}
ALL = {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
PLACES = """import json
from ray.util.state import list_actors, list_nodes, list_tasks
ips = {node.node_id: node.node_ip for node in list_nodes()}
found = [(task.name, ips[task.node_id]) for task in list_tasks(detail=True, limit=5000) if task.node_id]
found += [(actor.class_name, ips[actor.node_id]) for actor in list_actors(detail=True, limit=500) if actor.node_id]
print(json.dumps(found))"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """Four CPUs, so that four workers take all three nodes."""
    with ray_nodes(2, 1, 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 2100), ("val", 60))}


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, sets: dict[str, str]) -> Callable[..., BrakedBench]:
    def bench(**changes: dict[str, Any]) -> BrakedBench:
        return BrakedBench(tmp_path_factory.mktemp("bench"), sets, train=FEW, **changes)

    return bench


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, sets: dict[str, str]) -> BrakedBench:
    return BrakedBench(tmp_path_factory.mktemp("alone"), sets, train=FEW).alone(4)


def places(nodes: RayNodes) -> set[tuple[str, str]]:
    """Return names of tasks and classes of actors, of all times, each with the address of its node."""
    environment = nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
    argv = [sys.executable, "-c", PLACES]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return {(name, ip) for name, ip in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(("slots", "work"), [("warm", "RayTrainWorker"), ("fresh", "MapBatches(Load)")])
def test_a_run_on_three_nodes_is_that_of_one_digit_for_digit(
    nodes: RayNodes, bench: Callable[..., BrakedBench], alone: BrakedBench, slots: str, work: str
) -> None:
    """Its workers, and the tasks that feed them, are on all three; those that embed, on more than one."""
    place = bench(resources={"slots": slots}).on(nodes)
    place.sweep()
    same_digits(place, alone)
    found = places(nodes)
    assert {ip for name, ip in found if name == "RayTrainWorker"} == ALL
    assert {ip for name, ip in found if name == "ReadSampleOrder"} == ALL
    assert len({ip for name, ip in found if work in name}) > 1, found


def test_runs_share_a_stream_on_each_node(nodes: RayNodes, sets: dict[str, str]) -> None:
    argv = [sys.executable, str(HELPERS / "read_on_nodes.py"), sets["train"]]
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout.splitlines()[-1])
    assert {name.split()[0] for name in taken} == ALL
    assert min(taken.values()) > 30, taken  # of 40
    assert {ip for name, ip in places(nodes) if name == "StreamServer"} == ALL
