"""Means over evaluations: which there are, their scales, and that they change no stage and reach MLflow."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from plans import PLACE, Home

from selfsup import evaluations, means
from selfsup.errors import SpecError
from selfsup.evaluator import Metric
from selfsup.metrics_log import MetricsLog
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.summary import as_data, from_data, summarize
from selfsup.sweeps import trial
from selfsup.sweeps.averages import mean_curves
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.spec.design import metrics
from selfsup.sweeps.status import latest_scores, scores
from selfsup.track import Tracker

EVALS = {
    "birds": {"use": "knn", "k": 3},
    "cars": {"use": "linear"},
    "rank": {"use": "spectrum"},
    "views": {"use": "invariance"},
}
TOP1 = ("eval/birds/top1", "eval/cars/top1")


def planned(home: Home, **asked: list[str]) -> PlannedRun:
    return home.run(evals=EVALS | {"means": asked})


def finished(run: PlannedRun, numbers: dict[str, dict[str, float]]) -> None:
    for stage in run.stages:
        stage.claim()
        stage.finish({"images": 4.0})
    for name, values in numbers.items():
        run.probes[name].finish(values)


def test_a_mean_is_of_each_score_that_all_have_and_changes_no_run(home: Home) -> None:
    run, plain = planned(home, transfer=["birds", "cars"]), home.run(evals=EVALS)
    assert run.id == plain.id
    assert run.means == {"eval/transfer/top1": TOP1}
    assert "eval/transfer/top1" in run.headlines
    assert metrics(run.run)["eval/transfer/top1"] == Metric()  # type: ignore[arg-type]
    written = {"transfer": ["birds", "cars"], "none": ["birds"], "odd": 3}
    known = [evaluations.metrics({"evals": EVALS | {"means": made}}) for made in (written, {})]
    assert known[0] == known[1] | {"eval/transfer/top1": Metric()}
    assert from_data(as_data([summarize(run)]), run.home)[0].means == run.means


def test_scales_of_a_mean_are_those_of_its_members() -> None:
    percent, meters, hidden = Metric(better="min"), Metric(unit="m", better="min"), Metric(headline=False)
    aimless = Metric(better=None, headline=False)
    suite = {
        "a": {"error": percent, "top1": Metric(), "lr": aimless},
        "b": {"error": meters, "top1": hidden, "lr": aimless},
    }
    assert means.metrics("m", ["a", "b"], suite) == {
        "eval/m/error": means.Mean(("eval/a/error", "eval/b/error"), Metric(unit="", better="min")),
        "eval/m/top1": means.Mean(("eval/a/top1", "eval/b/top1"), hidden),
    }
    assert means.values({"m": ("a", "b"), "n": ("a", "c")}, {"a": 1.0, "b": 4.0}) == {"m": 2.5}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"m": ["birds"]}, r"m: expected two evaluations or more, each once, not \[birds\]"),
        ({"m": ["birds", "birds"]}, r"m: expected two evaluations or more, each once"),
        ({"m": ["birds", "carss"]}, r"m: no evaluation is called 'carss' \(did you mean 'cars'\?\)"),
        ({"m": ["birds", "rank"]}, r"m: these evaluations share no score: birds has top1, top5; rank has rankme"),
        ({"cars": ["birds", "rank"]}, r"cars: cars is the name of an evaluation; choose another"),
        ({"every": ["birds", "cars"]}, r"every: every is a word of the program; choose another name"),
        ({"a b": ["birds", "cars"]}, r"a b: a name of an evaluation is a letter"),
    ],
)
def test_what_is_no_mean_is_told_at_its_place(home: Home, asked: dict[str, list[str]], message: str) -> None:
    with pytest.raises(SpecError, match=rf"{PLACE}evals\.means\.{message}"):
        planned(home, **asked)


def test_a_mean_of_no_list_is_told(home: Home) -> None:
    expected = r"evals\.means: expected \{name: \[text, \.\.\.\], \.\.\.\} \| null, not 'birds'"
    with pytest.raises(SpecError, match=rf"{PLACE}{expected}"):
        home.run(evals=EVALS | {"means": {"m": "birds"}})


def test_scores_of_which_less_is_better_in_one_alone_have_no_mean() -> None:
    suite = {"a": {"gap": Metric()}, "b": {"gap": Metric(better="min")}}
    assert means.problem(["a", "b"], suite) == "less of gap is better in b, more of it in a: a mean says nothing"


def test_raw_samples_lack_means_of_what_needs_an_encoder(home: Home) -> None:
    evals = {"birds": {"use": "knn", "k": 3}, "cars": {"use": "finetune", "epochs": 10, "batch": 8}}
    runs = home.plan(evals=evals | {"means": {"transfer": ["birds", "cars"]}}, baselines=True)
    assert {run.method: bool(run.means) for run in runs} == {"pixels": False, "untrained": True, "mae": True}


def log(run: PlannedRun, name: str, curve: dict[int, float]) -> None:
    """Log an evaluation during training."""
    spool = MetricsLog(run.probes[name].spool)
    for step, value in curve.items():
        spool.append(step, {"top1": value})
    spool.commit(4)


def test_a_mean_has_a_number_at_each_step_at_which_all_have_one(home: Home) -> None:
    """After step 2 the second failed, and after step 3 the first is not made yet."""
    run = home.run(evals=EVALS | {"every": {"steps": 1}, "means": {"transfer": ["birds", "cars"]}})
    seen = Counter[str]()
    log(run, "cars", {1: 50.0, 3: 70.0})
    assert [report.get("eval/transfer/top1") for report in trial.new_reports(run, seen)] == [None, None]
    log(run, "birds", {1: 10.0, 2: 20.0})
    assert mean_curves(run) == {"eval/transfer/top1": {1: 30.0}}
    assert latest_scores(run)["eval/transfer/top1"] == 30.0
    *_, report = trial.new_reports(run, seen)
    assert report["eval/transfer/top1"] == 30.0
    assert report[trial.PART] == trial.PARTS / 4
    assert [*trial.new_reports(run, seen)] == []
    assert mean_curves(planned(home, transfer=["birds", "cars"])) == {}  # no evaluation is asked for


def test_mlflow_holds_the_mean_that_the_spec_asks_for_now(
    home: Home, tmp_path: Path, local_store: Callable[[Path], Tracker]
) -> None:
    """The mean of 60 and 90 is 75; with 30 instead of 90: 45, though it is less and of the same step.

    Half way to it, likewise.
    """
    tracker = local_store(tmp_path)
    evals = EVALS | {"dogs": {"use": "knn", "k": 1}, "every": {"steps": 2}}
    numbers = {"birds": {"top1": 60.0}, "cars": {"top1": 90.0}, "dogs": {"top1": 30.0}}
    for members, expected in ((["birds", "cars"], 75.0), (["birds", "dogs"], 45.0), (["birds", "cars"], 75.0)):
        run = home.run(evals=evals | {"means": {"transfer": members}})
        if not run.done:
            finished(run, numbers)
            for name, own in numbers.items():
                log(run, name, {2: own["top1"] / 2})
        assert scores(run)["eval/transfer/top1"] == trial._results(run)["eval/transfer/top1"] == expected
        Recorder(tracker).catch_up([run])
        Recorder(tracker).catch_up([run])
        [recorded] = tracker.runs(run.spec)
        assert recorded.data.metrics["eval/transfer/top1"] == expected
        assert tracker.history(recorded.info.run_id, "eval/transfer/top1") == [(2, expected / 2), (4, expected)]
        assert recorded.info.status == "FINISHED"
