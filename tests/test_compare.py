from dataclasses import replace

import pytest
from toy_sweep import DEPTH, KNN, RATIO, result

from selfsup import evaluator
from selfsup.evaluator import Metric
from selfsup.sweeps.report.compare import compare

DEFAULT = result("mae-a", 0, 71.25, {RATIO: 0.75, DEPTH: 8})


def test_what_differs_is_shown_with_its_difference_and_the_rest_counted() -> None:
    other = result("mae-b", 0, 70.1, {RATIO: 0.5, DEPTH: 8})
    assert compare(DEFAULT, other).splitlines() == [
        "                  mae-a  mae-b",
        "seed              0      0",
        "status            done   done",
        "",
        "eval/knn/top1     71.25  70.1 (-1.15)",
        "",
        "hyper.mask_ratio  0.75   0.5",
        "",
        "the same: 5 settings, 1 result",
        "",
        "one seed of each says nothing of chance: differences like these may come from the seed alone",
    ]


def test_scores_and_settings_come_before_the_code_and_the_course_of_the_training() -> None:
    """The two numbers that one wants are not below the seconds until the first step."""
    first = replace(DEFAULT, metrics={KNN: 70.0, "pretrain/start_seconds": 2.0})
    tags = dict(DEFAULT.tags) | {"selfsup.commit": "beef"}
    other = result("mae-b", 0, 71.0, {RATIO: 0.5, DEPTH: 8})
    other = replace(other, metrics={KNN: 71.0, "pretrain/start_seconds": 3.0}, tags=tags)
    names = [line.split()[0] for line in compare(first, other).splitlines() if line and line[0] != " "]
    assert names[2:6] == [KNN, "hyper.mask_ratio", "selfsup.commit", "pretrain/start_seconds"]


def test_where_no_result_differs_nothing_is_said_of_chance() -> None:
    assert compare(DEFAULT, replace(DEFAULT, id="mae-b", seed=1)).endswith("the same: 6 settings, 2 results")


def test_a_run_without_a_result_says_why() -> None:
    text = compare(DEFAULT, result("mae-b", 1, "out of memory: 80 GiB", {RATIO: 0.75, DEPTH: 8}))
    assert text.splitlines()[2].split() == ["status", "done", "failed", "(out", "of", "memory:", "80", "GiB)"]
    assert f"{KNN}        71.25     –".split() in [line.split() for line in text.splitlines()]


def test_differences_are_to_the_first_of_several() -> None:
    arm = {"selfsup.study": "mae", "selfsup.arm": "default"}
    third = replace(DEFAULT, id="mae-c", metrics={KNN: 72.25}, tags={"selfsup.commit": "beef"} | arm)
    lines = [line.split() for line in compare(DEFAULT, DEFAULT, third).splitlines()]
    assert ["arm", "mae:", "default"] in lines
    assert [KNN, "71.25", "71.25", "(+0)", "72.25", "(+1)"] in lines
    assert ["selfsup.commit", "c0ffee", "c0ffee", "beef"] in lines
    assert ["selfsup.data.train", "d1", "d1", "–"] in lines


@pytest.mark.parametrize(("use", "name"), [("knn", "knn"), ("few", "knn")])
def test_a_metric_of_which_less_is_better_says_so(monkeypatch: pytest.MonkeyPatch, use: str, name: str) -> None:
    monkeypatch.setattr(evaluator.load(name), "metrics", {"top1": Metric(better="min")})
    metric = f"eval/{use}/top1"
    runs = [replace(DEFAULT, metrics={metric: value}, params={f"evals.{use}.use": name}) for value in (2.0, 1.0)]
    assert f"{metric} (less is better)  2  1 (-1)".split() in [line.split() for line in compare(*runs).splitlines()]
