"""Slots: what one worker after another makes of runs, warm and fresh, and how a slot ends."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import yaml
from ray import cloudpickle
from ray.exceptions import RayActorError, RayError
from safetensors.torch import load_file
from toy_training import TINY, folder, workers

from selfsup import failures
from selfsup.errors import DataError
from selfsup.pipelines.cluster import slot
from selfsup.pipelines.cluster.growth import ServedOnly
from selfsup.pipelines.cluster.slot import serving
from selfsup.pipelines.cluster.slot_server import SlotKind
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import tasks
from selfsup.pipelines.stages.evaluate import read_features
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytestmark = pytest.mark.usefixtures("cluster")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # which workers do not find


@pytest.fixture
def kind(tmp_path: Path) -> SlotKind:
    return SlotKind((1,), {"CPU": 0.5}, 0.0, 3, (), tmp_path)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    slot.close_idle()


class Idle:
    """An actor that does nothing."""


def process(*_: object) -> int:
    return os.getpid()


def keep(size: int) -> None:
    sys.__dict__.setdefault("hoard", []).append(b"1" * size)


def fail(message: str) -> None:
    raise DataError(message)


def wait(note: Path) -> None:
    note.touch()
    time.sleep(600.0)


def die_once(note: Path) -> int:
    if not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(note: Path) -> None:
    with note.open("a") as file:
        file.write("died\n")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def planned(tmp_path: Path, make: Callable[..., Manifest], spoil: Callable[..., None]) -> Callable[..., PlannedRun]:
    spoil(make(tmp_path / "train", number=50), [3], keep=0)
    make(tmp_path / "val", number=20, seed=1)

    def planned(home: str, **changes: Any) -> PlannedRun:
        spec = TINY | {"data": {split: str(tmp_path / split / "shards") for split in ("train", "val")}} | changes
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(spec))
        return plan(read(path), tmp_path / home)[0]

    return planned


def test_what_a_warm_slot_makes_of_a_run_is_what_a_fresh_one_makes(planned: Callable[..., PlannedRun]) -> None:
    """Two workers, and before it another run of theirs; digit for digit the weights, features and scores."""
    short = {"train": TINY["train"] | {"duration": {"steps": 6}}, "embed": {"batch": 16}}
    seats = {"workers": 2, "cpus_per_worker": 0.4, "data_cpus": 0.2}
    before, warm = (
        planned("warm", **short, hyper=TINY["hyper"] | {"mask_ratio": ratio}, resources=seats) for ratio in (0.5, 0.75)
    )
    fresh = planned("fresh", **short, resources=seats | {"slots": "fresh"})
    seen = len(workers())
    for run in (before, warm, fresh):  # the third in a process that keeps a slot, and another home
        perform(run, keep_slot=True)
    assert len(workers()) - seen == 4, "two for both warm runs, two for the fresh one"
    one, other = (load_file(folder(run) / "encoder.safetensors") for run in (warm, fresh))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    (table, features), (expected, values) = (read_features(run.embeds["knn"].folder) for run in (warm, fresh))
    assert table["id"].equals(expected["id"])
    np.testing.assert_array_equal(features, values)
    for name in warm.probes:
        assert warm.probes[name].result() == fresh.probes[name].result()


def test_a_process_serves_runs_of_a_kind_one_after_another(kind: SlotKind) -> None:
    with serving(kind, keep=True) as place:
        first = place.call(process)
        with pytest.raises(DataError, match=r"^bad$"):  # an error of an evaluation, not of the worker
            place.call(fail, "bad")
    assert slot.current() is None
    with serving(kind, keep=True) as place:
        assert place.call(process) == first
    with serving(kind._replace(code=("mine 1f",)), keep=True) as place:
        assert place.call(process) != first


def test_a_run_that_fails_ends_its_slot(kind: SlotKind) -> None:
    seen: list[int] = []
    with pytest.raises(DataError):
        fail_in_a_slot(kind, seen)
    with serving(kind, keep=True) as place:
        assert [place.call(process)] != seen


def fail_in_a_slot(kind: SlotKind, seen: list[int]) -> None:
    with serving(kind, keep=True) as place:
        seen.append(place.call(process))
        place.call(fail, "bad")


def test_a_worker_that_dies_is_replaced_and_serves_no_other_run(kind: SlotKind, tmp_path: Path) -> None:
    with serving(kind, keep=True) as place:
        first = place.call(process)
        second = place.call(die_once, tmp_path / "died")
        assert place.call(process) == second != first
        assert place.is_worn
    with serving(kind, keep=True) as place:
        assert place.call(process) not in (first, second)


def test_a_worker_that_dies_more_often_than_it_may_fails_its_run(kind: SlotKind, tmp_path: Path) -> None:
    often = pytest.raises(ray.train.TrainingFailedError)
    with often, serving(kind._replace(max_failures=0), keep=True) as place:
        place.call(die, tmp_path / "deaths")
    assert (tmp_path / "deaths").read_text() == "died\n"


def test_a_worker_that_keeps_memory_serves_no_other_run(kind: SlotKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "LEAK", 2**26)
    with serving(kind, keep=True) as place:
        place.call(keep, 2**20)
        assert not place.is_worn
        place.call(keep, 2**27)
        assert place.is_worn


def test_many_samples_make_room_for_ray_data(kind: SlotKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LARGE", 10)
    with serving(kind, keep=True) as place:
        first = place.call(process)
        assert tasks.slot_for(10) is place
        assert tasks.slot_for(11) is None
        assert place.call(process) != first  # the one before has ended
    assert tasks.slot_for(1) is None  # no run is performed


def test_a_slot_that_is_closed_while_it_works_ends_its_run(kind: SlotKind, tmp_path: Path) -> None:
    """So is a trial that a search stops."""
    noted: list[BaseException] = []

    def performed() -> None:
        try:
            with serving(kind, keep=True) as place:
                try:
                    place.call(wait, tmp_path / "began")
                except RayError as error:
                    noted.append(error)
                place.call(process)
        except Exception as error:
            noted.append(error)

    thread = threading.Thread(target=performed)
    thread.start()
    while not (tmp_path / "began").exists():
        time.sleep(0.05)
    slot.close_busy()
    thread.join(20.0)
    assert not thread.is_alive()
    killed, refused = noted
    assert failures.classify(killed).kind == "infrastructure"
    assert "stopped" in str(refused), "no new workers for what is over"


def test_a_slot_without_its_server_starts_no_workers() -> None:
    """Ray Train's controller, which ends a moment later, would replace them, and nothing frees their room any more."""
    server = ray.remote(num_cpus=0)(Idle).remote()
    guard = ServedOnly(server)
    assert guard.on_controller_start_worker_group(scaling_config=None, num_workers=1) is None
    ray.kill(server)

    def ask_again() -> None:
        for _ in range(100):  # on a busy machine the kill takes a moment
            guard.on_controller_start_worker_group(scaling_config=None, num_workers=1)
            time.sleep(0.1)

    with pytest.raises(RayActorError):
        ask_again()
