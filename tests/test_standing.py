"""Rows of a local store as MLflow has them, and reports that are shown again while nothing has changed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import SPEC, packed_folder, process, selfsup

from selfsup import origin, sqlite_runs
from selfsup.sweeps import plans, standing
from selfsup.sweeps.report import results
from selfsup.sweeps.report.results import gather
from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import Tracker

SCRIPT = "import sys; from selfsup.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
HEAVY = {"torch", "timm", "torchvision", "mlflow", "ray", "pandas", "matplotlib", "sklearn", "scipy"}


def add(tracker: Tracker, name: str, *, ended: bool = True, experiment: str = "tiny", **tags: str) -> str:
    run = tracker.open(
        id=name,
        name=name,
        experiment=experiment,
        params={"train.batch": 8, "empty": ""},
        tags={"selfsup.seed": "0"} | tags,
    )
    tracker.metrics(run, {"eval/knn/top1": 50.0}, step=1, time=1000)
    tracker.metrics(run, {"eval/knn/top1": 62.5, "pretrain/loss": 1e-3}, step=2, time=2000)
    if ended:
        tracker.finish(run, "FINISHED")
    return run


def as_mlflow_has(tracker: Tracker, where: str) -> list[dict[str, Any]]:
    return [results._row(run) for run in tracker.runs("tiny", where)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "mlflow.db"


@pytest.fixture(scope="module")
def tracker(store: Path, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(store.parent)


def test_rows_of_the_file_are_those_of_mlflow(store: Path, tracker: Tracker) -> None:
    assert sqlite_runs.experiment(store, "tiny") is None
    first, second, gone = add(tracker, "a"), add(tracker, "b", ended=False), add(tracker, "c")
    add(tracker, "elsewhere", experiment="other")
    tracker._client.log_metric(second, "diverged", math.nan)
    tracker._client.log_metric(second, "large", math.inf)
    tracker._client.delete_run(gone)
    experiment, known = sqlite_runs.experiment(store, "tiny"), tracker.experiment("tiny")
    assert experiment
    assert known
    assert experiment == (known.experiment_id, known.creation_time)
    deleted, rows = sqlite_runs.changes(store, experiment.id, 0)
    assert deleted == {gone}
    expected = as_mlflow_has(tracker, "attributes.start_time > 0")
    assert [row["run"] for row in expected] == [first, second]
    for row, other in zip(sorted(rows, key=lambda row: row["started"]), expected, strict=True):
        assert math.isnan(row["metrics"].pop("diverged", math.nan))
        assert math.isnan(other["metrics"].pop("diverged", math.nan))
        assert row == other
    ended = next(row["ended"] for row in expected if row["run"] == first)
    assert {row["run"] for row in sqlite_runs.changes(store, experiment.id, ended)[1]} == {first, second}
    assert {row["run"] for row in sqlite_runs.changes(store, experiment.id, ended + 1)[1]} == {second}


def test_a_file_of_another_schema_is_left_to_mlflow(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tracker, "a", experiment="moved")
    before = results._changes(tracker, "moved", 0)
    monkeypatch.setattr(sqlite_runs, "CHANGED", "no_such_column = ? AND ?")
    assert results._changes(tracker, "moved", 0) == before
    assert len(before[1]) == 1


def test_a_run_that_is_deleted_leaves_the_table(tracker: Tracker, tmp_path: Path) -> None:
    """The cache of rows holds it, and the file says that it is gone."""
    arm = Arm("default", {}, {}, {0: "d", 1: "e"})
    study = Study("mae", "mae", (), (), (arm,), {}, "")
    sweep = Sweep("fewer", "", "tiny.yaml", "d", (0, 1), ("eval/knn/top1",), (study,))
    runs = [add(tracker, name, experiment="fewer") for name in arm.ids.values()]
    for expected in (["done", "done"], ["done", "pending"]):
        assert [run.status for run in gather(tracker, sweep, cache=tmp_path)] == expected
        tracker._client.delete_run(runs[1])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = packed_folder(tmp_path_factory.mktemp("standing"))
    sweep = SPEC | {"ablate": {"hyper.mask_ratio": [0.5, 0.75]}, "baselines": False}
    (packed / "swept.yaml").write_text(yaml.safe_dump(sweep))
    return packed


def test_a_report_is_drawn_again_only_where_it_would_differ(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    monkeypatch.setenv("SELFSUP_HOME", str(swept / "home"))
    plan = plans.Plan(Path("swept.yaml"), [], swept / "home")
    assert standing.standing(plan.sweep, swept / "home") is None
    first = selfsup("report", "swept.yaml", cwd=swept)
    assert (first.code, "no results yet" in first.out) == (0, True), first.err
    assert selfsup("report", "swept.yaml", cwd=swept) == first, "its page leads to MLflow now"
    page = swept / "home" / "reports" / "tiny" / "report.html"
    written = page.stat().st_mtime_ns
    assert selfsup("report", "swept.yaml", cwd=swept) == first
    assert page.stat().st_mtime_ns == written
    content = page.read_bytes()
    page.write_bytes(content[:-9])
    assert selfsup("report", "swept.yaml", cwd=swept) == first
    assert page.read_bytes() == content, "a damaged page is written anew"
    tracker = Tracker(f"sqlite:///{swept / 'home' / 'mlflow.db'}").connect()
    add(tracker, next(iter(plan.runs)))
    other = selfsup("report", "swept.yaml", cwd=swept)
    assert "62.5" in other.out
    assert "62.5" not in first.out
    assert standing.standing(plan.sweep, swept / "home")
    assert standing.finished(plan, swept / "home") is None, "its stages are not on the disk"


def test_a_report_that_stands_imports_nothing_heavy(swept: Path) -> None:
    first = selfsup("report", "swept.yaml", cwd=swept)
    shown = process("-c", SCRIPT, "report", "swept.yaml", cwd=swept)
    assert shown.code == 0, shown.err
    *lines, modules = shown.out.splitlines()
    assert lines == first.out.splitlines()
    assert not HEAVY & set(modules.split())


def test_a_finished_run_is_shown_again_without_anything_heavy(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    plan = plans.Plan(Path("tiny.yaml"), [], swept / "home")
    for stage in {stage.key: stage for run in plan.runs.values() for stage in run.stages}.values():
        origin.claim(stage)
        stage.finish({"top1": 50.0} if stage.kind == "knn" else {})
    assert standing.tabled([plan], swept / "home") is None
    first = selfsup("run", "tiny.yaml", cwd=swept)
    assert (first.code, "50" in first.out) == (0, True), first.err
    shown = process("-c", SCRIPT, "run", "tiny.yaml", cwd=swept)
    *lines, modules = shown.out.splitlines()
    assert lines == first.out.splitlines()
    assert not HEAVY & set(modules.split())
    _, rows = sqlite_runs.changes(swept / "home" / "mlflow.db", "1", 0)
    tracker = Tracker(f"sqlite:///{swept / 'home' / 'mlflow.db'}")
    for row in rows:
        if row["id"] in plan.runs and "eval/knn/top1" in row["metrics"]:
            tracker.metrics(row["run"], {"eval/knn/top1": 87.5}, step=4, time=2_000_000_000_000)
    assert "87.5" in selfsup("run", "tiny.yaml", cwd=swept).out
    assert standing.tabled([plan], swept / "home")
    (plan.runs[next(iter(plan.runs))].stages[0].folder / "done.json").unlink()
    assert standing.tabled([plan], swept / "home") is None
