"""Faults of a cluster of three nodes: the same table, losses and weights as without, digit for digit.

Ray goes on by itself.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from braked import BRAKE, BrakedBench, same_digits
from ray_head import RAY
from ray_nodes import RayNode, RayNodes, ray_nodes

from selfsup.pipelines.data.manifest import Manifest

pytestmark = pytest.mark.slow  # each run takes a minute
NODE_ID = (
    "import ray, sys; ray.init(); print(*[n['NodeID'] for n in ray.nodes() if n['NodeManagerAddress'] == sys.argv[1]])"
)
TWO: dict[str, Any] = {
    "resources": {"workers": 2, "cpus_per_worker": 0.9, "data_cpus": 0.1},
    "stream": {"feeder": "threads"},
}
NOTICE = 15  # seconds


@pytest.fixture(scope="module")
def brake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("brake") / "brake"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, brake: Path) -> Iterator[RayNodes]:
    """A cluster whose GCS keeps its tables in files."""
    tables = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path_factory.mktemp("gcs"))}
    tables |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}  # on a busy machine a head takes more than Ray's 60
    with ray_nodes(1, 1, 1, dashboard=False, **{BRAKE: str(brake)}, **tables) as cluster:
        yield cluster


@pytest.fixture
def three(nodes: RayNodes) -> RayNodes:
    """The cluster with a node in place of any that a test before this one took away: two workers leave one over."""
    for node in [*nodes.nodes]:
        if not node.processes("/raylet "):
            nodes.nodes.remove(node)
            node.kill()
    while len(nodes.nodes) < 3:
        nodes.join(1)
    return nodes


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 2100), ("val", 60))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sets: dict[str, str]) -> BrakedBench:
    return BrakedBench(tmp_path_factory.mktemp("undisturbed"), sets, **TWO).alone(2)


@pytest.fixture
def bench(tmp_path: Path, sets: dict[str, str], three: RayNodes, brake: Path) -> Iterator[BrakedBench]:
    """A place whose run trains slowly until `brake` is gone."""
    brake.touch()
    yield BrakedBench(tmp_path, sets, **TWO).on(three)
    brake.unlink(missing_ok=True)


def training(nodes: RayNodes) -> RayNode:
    """Return a node, not the head, on which a worker trains."""
    return next(node for node in nodes.nodes[1:] if node.processes("RayTrainWorker"))


def lost(nodes: RayNodes) -> None:
    """A node loses its power."""
    training(nodes).kill()


def preempted(nodes: RayNodes) -> None:
    """A node is to be taken away, and is."""
    taken, environment = training(nodes), nodes.environment | {"RAY_ADDRESS": nodes.address}
    argv = [sys.executable, "-c", NODE_ID, taken.ip]
    told = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    argv = [RAY, "drain-node", "--address", nodes.address, "--node-id", told.split()[-1], "--reason-message", "test"]
    argv += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", str(NOTICE)]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    time.sleep(NOTICE)
    taken.kill()


@pytest.mark.parametrize("fault", [lost, preempted])
def test_a_run_goes_on(
    three: RayNodes, bench: BrakedBench, undisturbed: BrakedBench, brake: Path, fault: Callable[[RayNodes], None]
) -> None:
    with bench.sweeping() as process:
        bench.trains(process)
        fault(three)
        brake.unlink()
        told, _ = process.communicate()
    assert process.returncode == 0, told
    same_digits(bench, undisturbed)
