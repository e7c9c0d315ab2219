"""Runs as Tune trials on a real Ray: killed, failing, run before; the numbers are those of undisturbed runs."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import yaml
from ray.util.state import list_actors
from tiny import BACKBONE

from selfsup import failures
from selfsup.errors import SelfsupError
from selfsup.failures import MAX_ALIKE, classify
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.spec import read
from selfsup.sweeps.driver import RunsById, TrialMonitor, execute
from selfsup.sweeps.recorder import Recorder
from selfsup.track import Tracker

pytestmark = pytest.mark.usefixtures("cluster")
TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "simclr",
    "backbone": BACKBONE,
    "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
    "train": {"duration": {"steps": 40}, "batch": 16, "checkpoint_every": 5, "log_every": 5},
    "stream": {"lanes": 4, "chunk": 8, "mix": 4},
    "evals": {"knn": {"k": 3}},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 64), ("val", 16))}


@pytest.fixture
def planned(sets: dict[str, str], tmp_path: Path) -> Callable[..., tuple[PlannedRun, ...]]:
    """(home=..., **sections) -> the runs of the tiny spec under these sections."""

    def make(home: str = "home", **sections: object) -> tuple[PlannedRun, ...]:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(TINY | {"data": sets} | sections))
        return plan(read(path), tmp_path / home)

    return make


@pytest.fixture
def tracker(tmp_path: Path, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(tmp_path)


def scores(runs: tuple[PlannedRun, ...]) -> list[dict[str, float]]:
    return [run.probes["knn"].result() for run in runs]


def test_a_trial_makes_its_batches_as_the_plan_says(planned: Callable[..., tuple[PlannedRun, ...]]) -> None:
    """Whatever Ray tells its processes of a cluster."""
    [run] = planned()
    there = ray.remote(lambda each: ("RAY_ADDRESS" in os.environ, each.feeder))
    assert ray.get(there.remote(run)) == (True, "threads")


def kill_a_trial_once_it_trains(run: PlannedRun) -> None:
    assert run.pretrain
    while not list(run.pretrain.folder.glob("checkpoint_*")):
        time.sleep(0.1)
    alive = list_actors(ray.get_runtime_context().gcs_address, filters=[("state", "=", "ALIVE")])
    trial = next(actor for actor in alive if actor.class_name.endswith("ResourceTrainable"))
    os.kill(trial.pid, signal.SIGKILL)


def test_a_killed_trial_goes_on_and_ends_with_the_numbers_of_undisturbed_ones(
    planned: Callable[..., tuple[PlannedRun, ...]], tracker: Tracker
) -> None:
    whole, killed = planned("whole", seeds=2), planned("killed", seeds=2)
    assert execute(whole, Recorder(tracker)) == []
    killer = threading.Thread(target=kill_a_trial_once_it_trains, args=(killed[0],))
    killer.start()
    assert execute(killed, Recorder(tracker)) == []
    killer.join()
    assert scores(killed) == scores(whole)
    found = {run.data.tags["selfsup.id"]: run for run in tracker.runs("tiny")}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [found[run.id].data.metrics["eval/knn/top1"] for run in whole] == [each["top1"] for each in scores(whole)]


def test_what_fails_says_why_and_leaves_the_others_alone(
    planned: Callable[..., tuple[PlannedRun, ...]], tracker: Tracker
) -> None:
    (good,) = planned()
    (bad,) = planned(optim={"name": "sgd", "lr": 1e30, "lr_rule": "none"})
    (failure,) = execute((bad, good), Recorder(tracker))
    assert failure.kind == "non-finite"
    assert good.done
    assert not bad.done
    found = {run.data.tags["selfsup.id"]: run for run in tracker.runs("tiny")}
    assert found[bad.id].info.status == "FAILED"
    assert found[bad.id].data.tags["selfsup.reason"] == failure.reason
    assert execute((good,), Recorder(tracker)) == []


def test_a_failure_that_no_disk_takes_a_note_of_is_told_all_the_same(
    planned: Callable[..., tuple[PlannedRun, ...]], tracker: Tracker
) -> None:
    (run,) = planned()
    run.failure.mkdir(parents=True)  # in the place of the note
    (failure,) = execute((run,), Recorder(tracker))
    assert f"{run.failure}" in failure.message
    (found,) = tracker.runs("tiny")
    assert found.data.tags["selfsup.reason"] == failure.reason


def test_a_run_may_want_every_cpu(planned: Callable[..., tuple[PlannedRun, ...]], tracker: Tracker) -> None:
    (run,) = planned(resources={"cpus_per_worker": 1, "data_cpus": 1})
    assert execute((run,), Recorder(tracker)) == []
    assert run.done


def test_failures_that_repeat_themselves_end_the_sweep(
    planned: Callable[..., tuple[PlannedRun, ...]], tracker: Tracker, tmp_path: Path, make: Callable[..., Manifest]
) -> None:
    root = make(tmp_path / "missing", number=64).root
    runs = planned(data={"train": root, "val": root}, seeds=MAX_ALIKE + 4)
    next(Path(root).glob("*.tar")).unlink()
    failed = execute(runs, Recorder(tracker))
    assert {failure.kind for failure in failed} == {"user error"}
    assert MAX_ALIKE <= len(failed) < len(runs)


def test_failures_are_alike_whichever_run_they_name(planned: Callable[..., tuple[PlannedRun, ...]]) -> None:
    runs = planned(seeds=MAX_ALIKE)
    recorder: Any = SimpleNamespace(end=lambda *_: None)
    watch = TrialMonitor(RunsById({run.id: run for run in runs}), recorder)
    for run in runs:
        assert run.pretrain
        assert not watch.enough
        why = f"{run.pretrain.key}: no luck (Ray's whole report: {run.pretrain.folder / 'error.txt'})"
        failures.write(classify(SelfsupError(why)), run.failure)
        trial: Any = SimpleNamespace(trial_id=run.id, config={"id": run.id})
        watch.on_trial_error(trial=trial)
    assert watch.enough
