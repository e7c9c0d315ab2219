"""Runs whose home is on object storage: the numbers are those of a local home, also where another node goes on."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from servers import object_store
from tiny import BACKBONE
from toy_training import workers

from selfsup import tensors
from selfsup.homes import fetch, home_at, mirror_of, pull
from selfsup.metrics_log import records
from selfsup.mirror import Mirror
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.spec import read
from selfsup.sweeps.driver import execute
from selfsup.sweeps.recorder import Recorder
from selfsup.track import Tracker

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.slow]  # each training takes half a minute
SPEC: dict[str, Any] = {
    "name": "tiny",
    "method": "mae",
    "backbone": BACKBONE,
    "train": {"duration": {"steps": 24}, "batch": 16, "checkpoint_every": 4, "log_every": 4},
    "stream": {"lanes": 4, "chunk": 8, "mix": 4},
    "evals": {"every": {"steps": 12}, "knn": {"k": 3}, "linear": {}},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1, "max_failures": 0},
}
PATIENCE = 600  # seconds for what is sure to come, however busy the machine
HISTORY = ("seconds", "per_second", "input_wait", "restarts", "peak_memory")  # which no two runs share
Planner = Callable[[Path], PlannedRun]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with object_store("bucket") as endpoint:
        boto3.client("s3", endpoint_url=f"http://{endpoint}").put_bucket_acl(Bucket="bucket", ACL="public-read-write")
        yield f"s3://bucket/home?endpoint_override={endpoint}&scheme=http&anonymous=true"  # Ray has no keys


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Planner:
    folder = tmp_path_factory.mktemp("sets")
    sets = {name: make(folder / name, number=number).root for name, number in (("train", 64), ("val", 16))}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"data": sets}))
    return lambda home: plan(read(path), home)[0]


@pytest.fixture
def recorder(tmp_path: Path, local_store: Callable[[Path], Tracker]) -> Recorder:
    return Recorder(local_store(tmp_path))


def node(url: str, cache: Path) -> Path:
    """Return the home of a node that shares nothing with others but storage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(cache))
        return home_at(url)


def mirror_at(home: Path) -> Mirror:
    mirror = mirror_of(home)
    assert mirror
    return mirror


def results(run: PlannedRun) -> dict[str, dict[str, float]]:
    return {
        stage.space: {
            name: value for name, value in stage.result().items() if not any(part in name for part in HISTORY)
        }
        for stage in run.stages
    }


def curve(run: PlannedRun) -> list[tuple[int, float]]:
    assert run.pretrain
    return [(record.step, record.values["loss"]) for record in records(run.pretrain.spool)]


def weights(run: PlannedRun) -> dict[str, bytes]:
    assert run.pretrain
    fetch([run.pretrain.folder])
    state, _ = tensors.load(run.pretrain.folder / "encoder.safetensors")
    return {name: weight.numpy().tobytes() for name, weight in state.items()}


def kill_once_it_trains(folder: Path, idle: set[int]) -> None:
    """Kill the worker that has written a checkpoint. idle: others."""
    deadline = time.monotonic() + PATIENCE
    while not (new := alive() - idle):
        assert time.monotonic() < deadline
    while not list(folder.glob("checkpoint_*[0-9]/_digests.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in new:
        os.kill(process, signal.SIGKILL)


def alive() -> set[int]:
    return {actor.pid for actor in workers() if actor.state == "ALIVE"}


def test_the_numbers_are_those_of_a_local_home(url: str, planned: Planner, recorder: Recorder, tmp_path: Path) -> None:
    local, first, second = planned(tmp_path / "home"), *(planned(node(url, tmp_path / name)) for name in "12")
    assert (local.id, first.id) == (first.id, second.id)
    assert execute([local], recorder) == []
    mirror = mirror_at(first.home)
    assert first.pretrain
    assassin = threading.Thread(target=kill_once_it_trains, args=(first.pretrain.folder, alive()))
    assassin.start()
    [failure] = execute([first], recorder)
    assassin.join()
    assert failure.kind == "infrastructure"
    ended = time.time_ns() // 1_000_000
    assert execute([second], recorder) == []
    assert second.pretrain
    assert next(records(second.pretrain.spool)).time < ended, "it began anew"
    assert results(second) == results(local)
    assert curve(second) == curve(local)
    assert weights(second) == weights(local)
    pull(first.home, fresh=0.0)
    assert first.done
    assert weights(first) == weights(local)
    kept = {info.name.split("/")[2] for info in mirror.store.list(mirror.name(first.pretrain.folder))}
    assert {name for name in kept if name.startswith("checkpoint_")} == {"checkpoint_000000020", "checkpoint_000000024"}
    assert json.loads((second.pretrain.folder / "durable.json").read_text()) == {"step": 24}
