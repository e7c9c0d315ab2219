"""Views of sweeps in MLflow's UI, in the format of the version that is installed."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import mlflow
import pytest
import toy_search
import toy_sweep

from selfsup.sweeps import mlflow_tree, mlflow_views
from selfsup.sweeps.spec.study import Arm, Factor
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import ID, Tracker

KNN = toy_sweep.KNN


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(tmp_path_factory.mktemp("home"))


def toy(name: str) -> Sweep:
    study, _ = toy_sweep.study({"0.75, 8": [0.0, 0.0], "0.5, 8": [0.0, 0.0]})
    return replace(toy_sweep.sweep(study, baselines=[Arm("raw pixels", {}, {}, {0: "pixels-0"})]), name=name)


def test_a_view_of_arms_shows_factors_and_results(tracker: Tracker) -> None:
    mlflow_tree.open_sweep(tracker, toy("arms"))
    experiment = tracker.experiment("arms")
    assert experiment
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    state = json.loads(experiment.tags["mlflow.sharedViewState.5eed-arms"])
    assert state["searchFilter"] == "tags.`selfsup.sweep` = '5eed' AND tags.`selfsup.kind` = 'arm'"
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{KNN}/mean`", False)
    assert state["selectedColumns"] == [
        "params.`hyper.mask_ratio`",
        f"metrics.`{KNN}/mean`",
        f"metrics.`{KNN}/low`",
        f"metrics.`{KNN}/high`",
        f"metrics.`{KNN}/n`",
    ]
    assert state["columnOrder"] == state["selectedColumns"]
    curves = json.loads(experiment.tags["mlflow.sharedViewState.5eed-curves"])
    assert curves["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "selfsup.arm"}]


def test_the_default_arms_of_two_studies_are_two_curves() -> None:
    studies = [toy_sweep.study({"0.75, 8": [0.0]}, method=method)[0] for method in ("mae", "simclr")]
    *_, curves = mlflow_views.views(toy_sweep.sweep(*studies))
    keys = curves.state("5eed")["groupBy"]["groupByKeys"]
    assert [key["groupByData"] for key in keys] == ["selfsup.study", "selfsup.arm"]


def test_links_are_short_and_name_a_view(tracker: Tracker) -> None:
    mlflow_tree.open_sweep(tracker, toy("linked"))
    experiment = tracker.experiment("linked")
    assert experiment
    links = mlflow_views.links(tracker, "linked", "5eed", 5001)
    assert list(links) == ["arms", "runs", "curves"]
    page, _, query = links["curves"].partition("?")
    assert page == f"http://127.0.0.1:5001/#/experiments/{experiment.experiment_id}/runs"
    named = {"viewStateShareKey": "5eed-curves", "compareRunsMode": "CHART", "workflowType": "machine_learning"}
    assert dict(parse_qsl(query)) == named
    assert max(map(len, links.values())) < 140
    assert mlflow_views.links(tracker, "nowhere", "5eed") == {}
    assert list(mlflow_views.links(tracker, "linked", "another")) == ["runs"]  # of before there were views


def test_the_run_of_a_sweep_leads_to_its_report_its_views_and_its_encoders(tracker: Tracker) -> None:
    root = mlflow_tree.open_sweep(tracker, replace(toy("noted"), question="Does it hold?"))
    [run] = tracker.runs("noted")
    note, page = run.data.tags["mlflow.note.content"], f"#/experiments/{run.info.experiment_id}"
    assert note.startswith("Does it hold?\n\n[report](")
    targets = dict(re.findall(r"\[(\w+)\]\(([^)]*)\)", note))
    assert targets["report"] == f"{page}/runs/{root}/artifacts/report/report.html?workflowType=machine_learning"
    assert targets["encoders"] == f"{page}/models?workflowType=machine_learning"
    assert targets["arms"] == f"{page}/runs?viewStateShareKey=5eed-arms&workflowType=machine_learning"


def test_charts_list_the_latest_sweeps(tracker: Tracker) -> None:
    names = [f"charted {number}" for number in range(mlflow_views.SHOWN + 1)]
    for name in names:
        mlflow_tree.open_sweep(tracker, replace(toy(name), digest=name[-1]))
    lines = list(mlflow_views.charts(tracker, 5001))
    assert lines[0] == f"{names[-1]}, plan {names[-1][-1]}"
    assert lines[1].startswith("  arms: http://127.0.0.1:5001/#/experiments/")
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == [f"{name}, plan {name[-1]}" for name in reversed(names[1:])]


def test_a_search_has_a_view_of_trials_by_each_metric(tracker: Tracker) -> None:
    sweep, _ = toy_search.sweep(toy_search.simple([]))
    mlflow_tree.open_sweep(tracker, replace(sweep, name="searched"))
    [run] = tracker.runs("searched", f"tags.`{ID}` LIKE '%'")
    assert "[report]" not in run.data.tags["mlflow.note.content"]
    [(title, url)] = mlflow_views.links(tracker, "searched", "5eed").items()
    assert title == f"trials by {KNN}"
    assert "viewStateShareKey=5eed-trials-by-eval-knn-top1&compareRunsMode=CHART" in url


def test_a_view_of_many_factors_fits_into_a_tag(tracker: Tracker) -> None:
    sweep = toy("many")
    factors = tuple(Factor(f"hyper.a_long_name_of_a_knob_{number}", (1, 2), 1, None, False) for number in range(200))
    sweep = replace(sweep, studies=(replace(sweep.studies[0], factors=factors),))
    mlflow_tree.open_sweep(tracker, sweep)
    experiment = tracker.experiment("many")
    assert experiment
    assert len(experiment.tags["mlflow.sharedViewState.5eed-arms"]) <= 5000


def test_the_installed_ui_knows_what_links_and_views_say() -> None:
    """Its bundle is searched for the words of our links, since its format is its own."""
    scripts = Path(mlflow.__file__).parent.glob("server/js/build/static/js/*.js")
    bundle = "".join(path.read_text(errors="ignore") for path in scripts)
    for word in ("viewStateShareKey", "mlflow.sharedViewState.", "workflowType", "machine_learning", "compareRunsMode"):
        assert word in bundle, word
    for word in (
        "mlflow.experimentKind",
        "custom_model_development",
        "selectedColumns",
        "runsHiddenMode",
        "groupByKeys",
    ):
        assert word in bundle, word
