"""Faults of a cluster of three nodes: the same table, losses and weights as without, digit for digit.

Ray goes on by itself after most of them; after the others the same command does, once their cause is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from braked import BRAKE, TWO, BrakedBench, same_digits
from ray_head import RAY
from ray_nodes import RayNode, RayNodes, ray_nodes, tables_in
from servers import free_ports
from sweeping import served, until

pytestmark = pytest.mark.slow  # each run takes a minute
NODE_ID = (
    "import ray, sys; ray.init(); print(*[n['NodeID'] for n in ray.nodes() if n['NodeManagerAddress'] == sys.argv[1]])"
)
FROZEN = 60  # seconds
NOTICE = 15  # seconds


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, brake: Path) -> Iterator[RayNodes]:
    """A cluster whose GCS keeps its tables in files."""
    tables = tables_in(tmp_path_factory.mktemp("gcs"))
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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, braked_sets: dict[str, str]) -> BrakedBench:
    return BrakedBench(tmp_path_factory.mktemp("undisturbed"), braked_sets, **TWO).alone(2)


@pytest.fixture
def bench(tmp_path: Path, braked_sets: dict[str, str], three: RayNodes, brake: Path) -> Iterator[BrakedBench]:
    """A place whose run trains slowly until `brake` is gone."""
    brake.touch()
    yield BrakedBench(tmp_path, braked_sets, **TWO).on(three)
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


def frozen(nodes: RayNodes) -> None:
    """A worker stops, and goes on later."""
    [worker] = training(nodes).processes("RayTrainWorker")
    os.kill(worker, signal.SIGSTOP)
    time.sleep(FROZEN)
    os.kill(worker, signal.SIGCONT)


def without_gcs(nodes: RayNodes) -> None:
    """The GCS dies, and is started again from its files."""
    nodes.nodes[0].restart("gcs_server")


@pytest.mark.parametrize("fault", [lost, preempted, frozen, without_gcs])
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


def test_a_node_lost_that_kept_a_part_of_the_weights(
    three: RayNodes, tmp_path: Path, braked_sets: dict[str, str], undisturbed: BrakedBench, brake: Path
) -> None:
    """And wrote its part of each checkpoint; the digits are those of workers that keep all weights."""
    brake.touch()
    bench = BrakedBench(tmp_path, braked_sets, **TWO, train={"sharding": "fsdp"}).on(three)
    with bench.sweeping() as process:
        bench.trains(process)
        until(lambda: any(bench.home.glob("stages/pretrain-*/checkpoint_*/part-00001.pt")), process)
        lost(three)
        brake.unlink()
        told, _ = process.communicate()
    assert process.returncode == 0, told
    same_digits(bench, undisturbed)


def test_a_raylet_killed_while_features_are_made(
    three: RayNodes, tmp_path: Path, braked_sets: dict[str, str], undisturbed: BrakedBench
) -> None:
    bench = BrakedBench(
        tmp_path, braked_sets, resources=TWO["resources"] | {"slots": "fresh"}, stream=TWO["stream"]
    ).on(three)
    with bench.sweeping() as process:
        until(lambda: any(bench.home.glob("stages/embed-*")), process)
        until(lambda: any(node.processes("MapBatches") for node in three.nodes[1:]), process)
        [raylet] = next(node for node in three.nodes[1:] if node.processes("MapBatches")).processes("/raylet ")
        os.kill(raylet, signal.SIGKILL)
        assert not any(bench.home.glob("stages/embed-*/done.json"))
        told, _ = process.communicate()
    assert process.returncode == 0, told
    same_digits(bench, undisturbed)


def test_the_mlflow_server_gone_for_a_while(bench: BrakedBench, undisturbed: BrakedBench, brake: Path) -> None:
    [port] = free_ports(1)
    bench.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        with served(bench.home, port):
            process = stack.enter_context(bench.sweeping())
            bench.trains(process)
        bench.goes_on(process)
        stack.enter_context(served(bench.home, port))
        brake.unlink()
        told, _ = process.communicate()
        assert process.returncode == 0, told
    same_digits(bench, undisturbed)


def test_a_full_disk(bench: BrakedBench, undisturbed: BrakedBench, brake: Path) -> None:
    """The run ends with a reason, and goes on from its checkpoint once there is room."""
    bench.home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(bench.home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with bench.sweeping() as process:
            bench.trains(process)
            with (bench.home / "filler").open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(2**16))
            brake.unlink()
            told, _ = process.communicate()
        assert process.returncode == 1, told
        assert "No space left on device" in told
        (bench.home / "filler").unlink()
        bench.sweep()
        same_digits(bench, undisturbed)
    finally:
        subprocess.run(["umount", str(bench.home)], check=True)
