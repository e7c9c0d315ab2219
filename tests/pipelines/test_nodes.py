"""Runs on a Ray cluster of three nodes: the digits of one node, with work on all three."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from braked import BrakedBench, same_digits, same_training
from ray_head import RAY
from ray_nodes import RayNodes, ray_nodes
from sweeping import BIN, Bench

from selfsup.pipelines.cluster.wheel import build_wheel
from selfsup.pipelines.data.manifest import Manifest

pytestmark = pytest.mark.slow  # each run takes a minute
ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
FEW = {"duration": {"steps": 12}}
SHORT = (
    "train.duration={steps: 4}",
    "train.batch=16",
    "optim.warmup=null",
    "backbone.image_size=16",
    "baselines=false",
    "resources.workers=4",
    "resources.cpus_per_worker=0.9",
    "resources.data_cpus=0.4",
)
ALL = {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
PLACES = """import json
from ray.util.state import list_actors, list_nodes, list_tasks
ips = {node.node_id: node.node_ip for node in list_nodes()}
tasks, actors = list_tasks(detail=True, limit=5000), list_actors(detail=True, limit=500)
found = [(task.job_id, task.name, ips[task.node_id]) for task in tasks if task.node_id]
found += [(actor.job_id, actor.class_name, ips[actor.node_id]) for actor in actors if actor.node_id]
print(json.dumps(found))"""


class Place(NamedTuple):
    """The place of a task or an actor. job: of Ray. name: of the task, or of the actor's class. ip: of the node."""

    job: str
    name: str
    ip: str


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


def places(nodes: RayNodes) -> set[Place]:
    """Return those of the tasks and actors of all times."""
    environment = nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
    argv = [sys.executable, "-c", PLACES]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return {Place(*values) for values in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(("slots", "work"), [("warm", "RayTrainWorker"), ("fresh", "MapBatches(Load)")])
def test_a_run_on_three_nodes_is_that_of_one_digit_for_digit(
    nodes: RayNodes, bench: Callable[..., BrakedBench], alone: BrakedBench, slots: str, work: str
) -> None:
    """Its workers, and the tasks that feed them, are on all three; those that embed, on more than one."""
    place, before = bench(resources={"slots": slots}).on(nodes), places(nodes)
    place.sweep()
    same_digits(place, alone)
    found = places(nodes) - before
    assert {one.ip for one in found if one.name == "RayTrainWorker"} == ALL
    assert {one.ip for one in found if one.name == "ReadSampleOrder"} == ALL
    assert len({one.ip for one in found if work in one.name}) > 1, found


def test_runs_share_a_stream_on_each_node(nodes: RayNodes, sets: dict[str, str]) -> None:
    argv = [sys.executable, str(HELPERS / "read_on_nodes.py"), sets["train"]]
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout.splitlines()[-1])
    assert {name.split()[0] for name in taken} == ALL
    assert min(taken.values()) > 30, taken  # of 40
    assert {one.ip for one in places(nodes) if one.name == "StreamServer"} == ALL


def test_jobs_run_a_shipped_spec_on_all_nodes(nodes: RayNodes, tmp_path: Path) -> None:
    """By `selfsup submit` and by `ray job submit`, to which the same wheel goes: the same digits."""
    spec, settings, before = "digits/simclr", [word for setting in SHORT for word in ("-s", setting)], places(nodes)
    submitted, sent = (Bench(tmp_path / name, Path(spec)) for name in ("submitted", "sent"))
    client = nodes.client(submitted.home)
    done = client.call(str(BIN / "selfsup"), "submit", spec, *settings, "--address", client.address)
    assert done.returncode == 0, done.stdout
    assert "knn top-1" in done.stdout
    modules = json.dumps({"py_modules": [str(build_wheel(ROOT, tmp_path / "wheel"))]})
    (tmp_path / "work").mkdir()
    job = [RAY, "job", "submit", "--address", client.address, "--working-dir", str(tmp_path / "work")]
    job += ["--runtime-env-json", modules, "--", "env", f"SELFSUP_HOME={sent.home}"]
    done = client.call(*job, "python", "-m", "selfsup.cli", "run", spec, *settings)
    assert done.returncode == 0, done.stdout
    same_training(sent, submitted)
    assert scores(sent) == scores(submitted)
    workers = [one for one in places(nodes) - before if one.name == "RayTrainWorker"]
    ips = [{one.ip for one in workers if one.job == job} for job in {one.job for one in workers}]
    assert ips == [ALL, ALL]


def test_a_node_without_the_home_is_named_before_anything_is_trained(
    nodes: RayNodes, bench: Callable[..., BrakedBench]
) -> None:
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    place = bench().on(nodes)
    place.home.mkdir()
    node = nodes.join(1, hidden=place.home)
    try:
        with place.sweeping() as process:
            told, _ = process.communicate()
    finally:
        node.kill()
    assert process.returncode == 1, told
    assert f"not every node of the cluster sees {place.home} as this one does:\n" in told
    assert f"({node.ip}): {place.home}/" in told
    assert not (place.home / "stages").exists()


def scores(bench: Bench) -> dict[str, dict[str, float]]:
    """Return the results of its two evaluations, by stage."""
    files = [file for kind in ("knn", "linear") for file in bench.home.glob(f"stages/{kind}-*/done.json")]
    assert len(files) == 2
    return {file.parent.name: json.loads(file.read_text())["result"] for file in files}
