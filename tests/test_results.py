"""Against a real store: what is kept of it must never differ from what it says."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_sweep

from selfsup import hits, sqlite_runs
from selfsup.errors import SpecError
from selfsup.metric_names import former_name
from selfsup.sqlite_runs import Row
from selfsup.sweeps.report import results
from selfsup.sweeps.report.results import find, gather
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import Tracker

KNN, LOSS = "eval/knn/top1", "pretrain/loss"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tracker(home: Path, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(home)


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> Sweep:
    """Two arms of two seeds, in an experiment of their own."""
    study, _ = toy_sweep.study({"0.75, 8": [70.0, 71.0], "0.5, 8": [65.0, 66.0]})
    return Sweep(request.node.name, "", "toy.yaml", "5eed", (0, 1), (KNN,), (study,))


def run(tracker: Tracker, sweep: Sweep, number: int, status: str, reason: str = "", knn: float = 70.0) -> str:
    """The sweep's run of this number, brought to a status."""
    id = [id for arm in sweep.studies[0].arms for id in arm.ids.values()][number]  # noqa: A001
    params, data = {"hyper.mask_ratio": 0.75}, [("photos/train", "d1", "train")]
    opened = tracker.open(id=id, name=id, experiment=sweep.name, params=params, tags={}, datasets=data)
    tracker.metrics(opened, {KNN: knn}, time=int(1000 * knn))
    for step in (1, 2, 3):
        tracker.metrics(opened, {LOSS: knn / step}, step=step, time=int(1000 * knn) + step)
    if status != "RUNNING":
        tracker.finish(opened, status, reason)  # type: ignore[arg-type]
    return opened


def test_each_planned_run_has_one_result(tracker: Tracker, sweep: Sweep) -> None:
    first = run(tracker, sweep, 0, "FINISHED", knn=71.5)
    run(tracker, sweep, 1, "FAILED", "out of memory: 80 GiB")
    run(tracker, sweep, 2, "RUNNING")
    found = gather(tracker, sweep, curves=[LOSS, "pretrain/rankme"])
    assert [(each.id, each.seed, each.status, each.reason) for each in found] == [
        ("mae-default-0", 0, "done", ""),
        ("mae-default-1", 1, "failed", "out of memory: 80 GiB"),
        ("mae-mask_ratio=0.5-0", 0, "running", ""),
        ("mae-mask_ratio=0.5-1", 1, "pending", ""),
    ]
    assert found[0].run == first
    assert found[0].params == {"hyper.mask_ratio": "0.75"}
    assert found[0].metrics == {KNN: 71.5, LOSS: 71.5 / 3}
    assert found[0].tags == {"selfsup.id": "mae-default-0", "selfsup.data.train": "d1"}
    assert found[0].curves == {LOSS: [(1, 71.5), (2, 71.5 / 2), (3, 71.5 / 3)]}
    assert found[3] == Result("mae-mask_ratio=0.5-1", 1, None, "pending", "", {}, {}, {}, {})


def test_a_run_that_was_ended_for_a_reason_stopped_and_one_interrupted_is_planned(
    tracker: Tracker, sweep: Sweep
) -> None:
    run(tracker, sweep, 0, "KILLED", "collapsed: feature std 0.001 at step 40")
    run(tracker, sweep, 1, "KILLED")
    assert [each.status for each in gather(tracker, sweep)[:2]] == ["stopped", "pending"]


@pytest.mark.parametrize(("status", "number"), [("RUNNING", None), ("KILLED", None), ("FINISHED", 60.0)])
def test_an_evaluation_on_the_way_is_a_point_of_the_curve_and_no_result(
    tracker: Tracker, sweep: Sweep, status: str, number: float | None
) -> None:
    id = sweep.studies[0].arms[0].ids[0]  # noqa: A001
    opened = tracker.open(id=id, name=id, experiment=sweep.name, params={"evals.every.steps": 10}, tags={})
    for step in (10, 20, 30):
        tracker.metrics(opened, {KNN: 2.0 * step}, step=step, time=step)
    if status != "RUNNING":
        tracker.finish(opened, status, "fell behind")  # type: ignore[arg-type]
    result = gather(tracker, sweep, curves=[KNN])[0]
    assert result.metrics.get(KNN) == number
    assert result.curves[KNN] == [(10, 20.0), (20, 40.0), (30, 60.0)]


def test_a_sweep_that_never_started(tracker: Tracker, sweep: Sweep, tmp_path: Path) -> None:
    assert [each.status for each in gather(tracker, sweep, cache=tmp_path)] == ["pending"] * 4


def test_what_is_kept_follows_every_change(tracker: Tracker, sweep: Sweep, tmp_path: Path) -> None:
    def same() -> list[Result]:
        kept = gather(tracker, sweep, curves=[LOSS], cache=tmp_path)
        assert kept == gather(tracker, sweep, curves=[LOSS])
        return kept

    first = run(tracker, sweep, 0, "FINISHED")
    second = run(tracker, sweep, 1, "RUNNING")
    same()
    run(tracker, sweep, 0, "FINISHED", knn=80.0)  # evaluated again
    assert same()[0].metrics[KNN] == 80.0
    run(tracker, sweep, 0, "RUNNING", knn=81.0)
    assert same()[0].status == "running"
    run(tracker, sweep, 0, "FINISHED", knn=82.0)
    tracker.finish(second, "FINISHED")
    assert [each.status for each in same()[:2]] == ["done", "done"]
    tracker._client.delete_run(first)
    assert same()[0].status == "pending"


@pytest.mark.parametrize("by", ["file", "MLflow"])
def test_finished_runs_are_read_once(
    tracker: Tracker, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "MLflow":  # as of a server
        monkeypatch.setattr(sqlite_runs, "TABLES", {"tags": "SELECT no_such_column FROM tags"})
        monkeypatch.setattr(sqlite_runs, "POINTS", "SELECT no_such_column FROM metrics")
    opened = run(tracker, sweep, 0, "FINISHED")
    run(tracker, sweep, 1, "FINISHED")
    with sqlite3.connect(tracker._store or "") as store:  # the first of them long ago
        store.execute("UPDATE runs SET end_time = end_time - 3600000 WHERE run_uuid = ?", [opened])
    before = gather(tracker, sweep, curves=[LOSS], cache=tmp_path)
    read: list[str] = []
    changes = results._changes

    def counted(*args: Any) -> tuple[set[str], list[Row]]:
        deleted, rows = changes(*args)
        read.extend(row["run"] for row in rows)
        return deleted, rows

    monkeypatch.setattr(results, "_changes", counted)
    monkeypatch.setattr(sqlite_runs, "POINTS", "SELECT no_such_column FROM metrics")
    monkeypatch.delattr(Tracker, "history")
    assert gather(tracker, sweep, curves=[LOSS], cache=tmp_path) == before
    assert read == [before[1].run]  # it may have ended while another machine's clock was behind


def test_curves_of_the_file_are_mlflows(tracker: Tracker, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = "pretrain/samples_per_second"
    runs = [run(tracker, sweep, number, "FINISHED", knn=number) for number in range(3)]
    again = [(2, 7.0, 1), (2, 5.0, 9_000), (4, 3.0, 2), (4, 2.0, 2), (1, float("inf"), 1)]
    for step, value, time in again:
        tracker._client.log_metric(runs[0], speed, value, timestamp=time, step=step)
        tracker._client.log_metric(runs[1], former_name(speed), value + 1, timestamp=time, step=step + 1)
    tracker._client.log_metric(runs[1], speed, 8.0, timestamp=9_000, step=3)
    monkeypatch.setattr(sqlite_runs, "ASKED", 2)
    assert tracker._store
    for name in (speed, LOSS):
        expected = {run: tracker.history(run, name) for run in runs if tracker.history(run, name)}
        assert sqlite_runs.curves(tracker._store, name, runs) == expected
    assert expected.keys() == set(runs)


def test_images_are_read_once_and_only_of_runs_that_told_them(
    tracker: Tracker, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits.save(tmp_path, "same", {"top1": np.array([True, False])})
    first = run(tracker, sweep, 0, "RUNNING", knn=50.0)
    tracker.artifact(first, tmp_path / hits.NAME, "knn")
    tracker.metrics(first, {"eval/knn/images": 2.0}, time=1)
    tracker.finish(first, "FINISHED")
    run(tracker, sweep, 1, "FINISHED")  # by older code
    told, untold, *_ = gather(tracker, sweep, cache=tmp_path)
    assert told.seen[KNN].images == "same"
    assert told.seen[KNN].right["top1"].tolist() == [True, False]
    assert untold.seen == {}
    monkeypatch.delattr(Tracker, "fetch")
    assert gather(tracker, sweep, cache=tmp_path)[0].seen.keys() == {KNN}


def test_a_run_is_found_by_its_id_in_any_experiment(tracker: Tracker, sweep: Sweep) -> None:
    opened = run(tracker, replace(sweep, name="elsewhere"), 0, "FINISHED", knn=71.5)
    [found] = find(tracker, ["mae-default-0"])
    assert (found.run, found.metrics[KNN]) == (opened, 71.5)
    with pytest.raises(SpecError, match="no run 'mae-nowhere' in MLflow"):
        find(tracker, ["mae-default-0", "mae-nowhere"])


def test_another_store_in_the_same_place_is_told_apart(sweep: Sweep, home: Path, tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    template = (home / "mlflow.db").read_bytes()
    for knn in (70.0, 75.0):
        store.write_bytes(template)
        tracker = Tracker(f"sqlite:///{store}").connect()
        run(tracker, sweep, 0, "FINISHED", knn=knn)
        assert gather(tracker, sweep, cache=tmp_path)[0].metrics[KNN] == knn
    assert len(list(tmp_path.glob("results-*.db"))) == 2
