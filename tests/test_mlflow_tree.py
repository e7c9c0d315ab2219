from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import toy_sweep

from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.registration import changes
from selfsup.sweeps.report.results import gather
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import ID, PARENT, Tracker

KNN = toy_sweep.KNN


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(tmp_path_factory.mktemp("home"))


def toy(name: str) -> Sweep:
    study, _ = toy_sweep.study({"0.75, 8": [0.0, 0.0], "0.5, 8": [0.0, 0.0], "0.5, 1": [0.0, 0.0]})
    made = toy_sweep.sweep(study, baselines=[Arm("raw pixels", {}, {}, {0: "pixels-0"})])
    return replace(made, name=name)


def test_tags_say_where_a_run_stands() -> None:
    found = mlflow_tree.tags(toy("tags"))
    whole = {"selfsup.sweep": "5eed", "selfsup.study": "mae", "selfsup.kind": "run", "selfsup.seed": "1"}
    assert found["mae-default-1"] == whole | {"selfsup.arm": "default"}
    assert found["mae-mask_ratio=0.5-1"] == whole | {
        "selfsup.arm": "mask_ratio=0.5",
        "selfsup.factor": "mask_ratio",
        "selfsup.value": "0.5",
    }
    crossed = found["mae-mask_ratio=0.5, decoder_depth=1-1"]
    assert (crossed["selfsup.factor"], crossed["selfsup.value"]) == ("mask_ratio, decoder_depth", "0.5, 1")
    assert (found["pixels-0"]["selfsup.study"], found["pixels-0"]["selfsup.arm"]) == ("baselines", "raw pixels")


def test_a_tree_is_planted_once(tracker: Tracker) -> None:
    sweep = toy("planted")
    parents = mlflow_tree.plant(tracker, sweep)
    assert mlflow_tree.plant(tracker, sweep) == parents
    assert parents.keys() == mlflow_tree.tags(sweep).keys()
    held = {run.info.run_id: run for run in tracker.runs(sweep.name)}
    assert len(held) == 5  # the sweep, three arms, a baseline
    arm = held[parents["mae-mask_ratio=0.5-0"]]
    root = held[arm.data.tags[PARENT]]
    assert (root.info.run_name, root.data.tags["selfsup.kind"]) == ("planted", "sweep")
    assert (arm.info.run_name, arm.data.params) == (
        "mae: mask_ratio=0.5",
        {"hyper.mask_ratio": "0.5", "hyper.decoder_depth": "8"},
    )
    mlflow_tree.plant(tracker, replace(sweep, digest="another plan"))
    assert len(tracker.runs(sweep.name)) == 10


def test_a_plan_is_registered_when_it_is_first_seen_and_stays(tracker: Tracker) -> None:
    first = toy("registered")
    mlflow_tree.open_sweep(tracker, first)
    second = replace(first, digest="another plan", metrics=(KNN, toy_sweep.LINEAR))
    root = mlflow_tree.open_sweep(tracker, second)
    before = mlflow_tree.plans(tracker, first.name)
    assert [(plan.digest, plan.metrics) for plan in before] == [("5eed", (KNN,)), ("another plan", second.metrics)]
    assert before[0].arms["mae: mask_ratio=0.5"] == {0: "mae-mask_ratio=0.5-0", 1: "mae-mask_ratio=0.5-1"}
    mlflow_tree.open_sweep(tracker, replace(second, question="Or so?"))
    assert mlflow_tree.plans(tracker, first.name) == before
    assert list(changes(second, before)) == [
        f"since the plan 5eed of {before[0].when}: added metric linear top-1",
    ]
    assert b"Does it hold?" in (tracker.fetch(root, mlflow_tree.PLAN) or b"")


def test_an_arm_holds_the_statistics_of_its_seeds(tracker: Tracker) -> None:
    sweep = toy("summary")
    parents, tags = mlflow_tree.plant(tracker, sweep), mlflow_tree.tags(sweep)
    for id, value in {"mae-default-0": 70.0, "mae-default-1": 72.0, "mae-mask_ratio=0.5-0": 60.0}.items():  # noqa: A001
        run = tracker.open(id=id, name=id, experiment=sweep.name, params={}, tags=tags[id], parent=parents[id])
        tracker.metrics(run, {KNN: value}, time=1000)
        tracker.finish(run, "FINISHED")
    for _ in range(2):
        mlflow_tree.summarize(tracker, ablation(sweep, gather(tracker, sweep)))
    found = {run.data.tags[ID]: run for run in tracker.runs(sweep.name)}
    arms = {run.data.tags["selfsup.arm"]: run for run in found.values() if run.data.tags["selfsup.kind"] == "arm"}
    default, other, untouched = (
        arms[name] for name in ("default", "mask_ratio=0.5", "mask_ratio=0.5, decoder_depth=1")
    )
    half = 12.706204736 * 2**0.5 / 2**0.5  # t of one degree of freedom, the deviation of 70 and 72, two seeds
    assert default.data.metrics == pytest.approx(
        {f"{KNN}/n": 2, f"{KNN}/mean": 71, f"{KNN}/sd": 2**0.5, f"{KNN}/low": 71 - half, f"{KNN}/high": 71 + half}
    )
    assert other.data.metrics == {f"{KNN}/n": 1, f"{KNN}/mean": 60}
    assert untouched.data.metrics in ({}, {f"{KNN}/n": 0})
    assert [run.info.status for run in (default, other, untouched)] == ["FINISHED", "KILLED", "KILLED"]
    assert len(tracker._client.get_metric_history(default.info.run_id, f"{KNN}/mean")) == 1
