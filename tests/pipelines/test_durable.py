"""Durability of a training: what it leaves goes up while it goes on, no wait is longer than asked for, all is told."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import object_store

from selfsup.homes import home_at, mirror_of
from selfsup.metrics_log import MetricsLog
from selfsup.mirror import Mirror
from selfsup.objects import StorageError
from selfsup.pipelines.stages import durable
from selfsup.pipelines.stages.durable import durably
from selfsup.sealed import sealed
from selfsup.stage import Stage
from selfsup.sweeps.status import _run_status

FIRST, LATER = "checkpoint_000000002", "checkpoint_000000004"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store("bucket") as endpoint:
        yield endpoint


@pytest.fixture
def stage(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    monkeypatch.setattr(durable, "PACE", 0.01)
    stage = Stage("pretrain", {}, {}, home_at(f"s3://bucket{tmp_path}?endpoint_override={endpoint}&scheme=http"))
    stage.folder.mkdir(parents=True)
    return stage


@pytest.fixture
def mirror(stage: Stage) -> Mirror:
    mirror = mirror_of(stage.folder)
    assert mirror
    return mirror


def leave(stage: Stage, name: str) -> None:
    """Write a checkpoint as training does."""
    with sealed(stage.folder / name) as folder:
        (folder / "state.pt").write_text(name)


def stored(mirror: Mirror, stage: Stage) -> set[str]:
    prefix = f"{mirror.name(stage.folder)}/"
    return {info.name.removeprefix(prefix) for info in mirror.store.list(prefix)}


def durable_step(mirror: Mirror, stage: Stage) -> int:
    """Return what storage says of itself; 0 before it says anything."""
    try:
        return int(json.loads(mirror.store.read(f"{mirror.name(stage.folder)}/durable.json"))["step"])
    except FileNotFoundError:
        return 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_checkpoints_go_up_while_it_trains_and_go_where_they_are_removed(stage: Stage, mirror: Mirror) -> None:
    def job(rank: int, world: int) -> tuple[int, int]:
        leave(stage, FIRST)
        until(lambda: durable_step(mirror, stage) == 2)
        assert {f"{FIRST}/state.pt", f"{FIRST}/_digests.json"} <= stored(mirror, stage)
        leave(stage, LATER)
        shutil.rmtree(stage.folder / FIRST)
        until(lambda: durable_step(mirror, stage) == 4)
        return rank, world

    assert durably(job, stage.folder, [], 0.0, 0, 1) == (0, 1)
    assert stored(mirror, stage) == {f"{LATER}/state.pt", f"{LATER}/_digests.json", "durable.json"}


def test_it_trains_on_while_a_checkpoint_is_slow_to_go_up(
    stage: Stage, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for ever if it waited: the upload ends only once the last step is done."""
    begun, ended, write = threading.Event(), threading.Event(), mirror.store.write

    def slow(name: str, data: bytes | Path) -> str:
        begun.set()
        assert ended.wait(60)
        return write(name, data)

    def job(*_: int) -> bool:
        leave(stage, FIRST)
        assert begun.wait(60)
        leave(stage, LATER)
        is_idle = stored(mirror, stage) == set()
        ended.set()
        return is_idle

    monkeypatch.setattr(mirror.store, "write", slow)
    assert durably(job, stage.folder, [], 0.0, 0, 1) is True
    assert durable_step(mirror, stage) == 4


def test_storage_that_fails_is_waited_for_as_long_as_asked_for_and_what_it_has_is_told(
    stage: Stage, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, _: bytes | Path) -> str:
        raise StorageError(f"{name}: no answer")

    def job(*_: int) -> None:
        leave(stage, FIRST)
        until(lambda: durable_step(mirror, stage) == 2)
        monkeypatch.setattr(mirror.store, "write", fail)
        leave(stage, LATER)
        MetricsLog(stage.spool).append(4, {"loss": 1.0})
        began.append(time.monotonic())

    began: list[float] = []
    error = durably(job, stage.folder, [], 1.5, 0, 1)
    assert 1.0 <= time.monotonic() - began[0] < 15
    assert isinstance(error, StorageError)
    assert str(error).endswith("no answer; the last checkpoint there is of step 2")
    run = SimpleNamespace(done=False, stages=[stage], pretrain=stage, steps=8, failure=stage.folder / "none")
    told = "pretrain was interrupted at step 4 of 8, of which storage has 2"
    assert _run_status(run) == ("pending", told)  # type: ignore[arg-type]
