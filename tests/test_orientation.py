"""A metric of which less is better: bold, claimed, marked in figures, expected and searched the right way round."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_sweep import KNN, arm, study, sweep

from selfsup import evaluator
from selfsup.errors import SpecError
from selfsup.evaluator import Metric
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.compare import compare
from selfsup.sweeps.report.decision import Decision, Outcome
from selfsup.sweeps.report.page import page
from selfsup.sweeps.report.plots import BLUE, RED, effects
from selfsup.sweeps.report.table import Ablation, Table
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec import sweepfile

LESS = Metric(unit="m", better="min")
TRUTH = {"0.75, 8": 130.0, "0.5, 8": 127.0, "0.9, 8": 133.0}  # 0.5 is the best, 0.9 the worst, by far more than chance


def planted(scale: Metric, truth: dict[str, float] = TRUTH, *, grid: bool = False) -> Ablation:
    """Four seeds that deviate by about 0.4 about the truth."""
    draw = np.random.default_rng(0)
    made, results = study({name: list(mean + draw.normal(0, 0.4, 4)) for name, mean in truth.items()}, grid=grid)
    return ablation(replace(sweep(made), scales={KNN: scale}), results)


def by_label(table: Table) -> dict[str, Any]:
    return {line.label: line.cells[KNN] for line in table.lines}


def test_the_least_is_bold_and_alone_not_shown_to_be_worse() -> None:
    cells = by_label(planted(LESS).tables[0])
    assert {label for label, cell in cells.items() if cell.best} == {"0.5"}
    assert {label for label, cell in cells.items() if cell.tied} == {"0.5"}
    more = by_label(planted(Metric(unit="m")).tables[0])
    assert {label for label, cell in more.items() if cell.best} == {"0.9"}
    assert [cells[label].difference for label in cells] == [more[label].difference for label in more]


def test_the_least_is_bold_in_every_text_of_the_report() -> None:
    """A row of 0.5 has the bold number, and no other row."""
    report = planted(LESS)
    bold = {
        "markdown": [line for line in paper.markdown(report).splitlines() if line.startswith("|") and "**" in line],
        "latex": [line for line in paper.latex(report).splitlines() if r"\bfseries" in line],
        "console": [line for line in paper.console(report).splitlines() if "*  " in line or line.endswith("*")],
    }
    for name, lines in bold.items():
        assert len(lines) == 1, name
        assert "0.5" in lines[0].partition("±")[0], name
    html = page(report, [], {})
    rows = [row for row in html.split("<tr") if 'class="best"' in row]
    assert ["0.5" in row for row in rows] == [True]


def test_a_comparison_of_runs_says_of_what_less_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator.load("knn"), "metrics", {"top1": LESS})
    _, (one, other, *_) = study({"0.75, 8": [130.0, 127.0]})
    assert f"{KNN} (less is better)" in compare(one, other)


def test_claims_name_the_better_first() -> None:
    [sentence] = planted(LESS).tables[0].verdict
    assert "0.5 < 0.75 by" in sentence
    assert "0.75 < 0.9 by" in sentence
    assert sentence.endswith("0.5 is the best.")
    assert ">" not in sentence


def test_of_a_grid_the_lowest_is_named() -> None:
    truth = {"0.75, 8": 130.0, "0.5, 8": 127.0, "0.75, 1": 133.0, "0.5, 1": 136.0}
    [sentence] = [text for table in planted(LESS, truth, grid=True).tables for text in table.verdict]
    assert "the lowest is (0.5, 8) with 12" in sentence
    assert "the other 3 are shown to be above the best" in sentence
    assert "(0.5, 8) < (0.75, 8) by" in sentence


def test_methods_are_compared_with_each_other_and_with_a_baseline_the_right_way() -> None:
    """mae has 3 less than the untrained encoder, simclr 3 more."""
    draw = np.random.default_rng(0)
    studies, results = [], []
    for method, mean in (("mae", 127.0), ("simclr", 133.0)):
        made, found = study({"0.75, 8": list(mean + draw.normal(0, 0.4, 4))}, method=method)
        studies.append(made)
        results += found
    floor, found = arm("random encoder", list(130.0 + draw.normal(0, 0.4, 4)), {"method": "untrained"}, "untrained")
    results += found
    report = ablation(replace(sweep(*studies, baselines=[floor]), scales={KNN: LESS}), results)
    table = report.tables[-1]
    cells = by_label(table)
    assert {label for label, cell in cells.items() if cell.best} == {"mae"}
    assert {label for label, cell in cells.items() if cell.tied} == {"mae"}
    [sentence] = table.verdict
    assert "mae is the best" in sentence
    assert "mae < random encoder by" in sentence
    assert "random encoder < simclr by" in sentence


def test_in_figures_less_is_blue_and_an_interval_goes_beyond_100() -> None:
    table = planted(LESS).tables[0]
    [axis] = effects([table]).axes
    colors = [line.get_color() for line in axis.lines if line.get_marker() == "o"]
    assert colors == [BLUE, RED]
    assert LESS.ends[1] > 133


def test_a_seed_that_diverged_counts_as_the_most() -> None:
    """Counted as the least, 62, it would make b the better of the two."""
    arms = {
        "a": Outcome({0: 70.0, 1: 71.0, 2: 72.0}, planned=3),
        "b": Outcome({0: 62.0, 1: 62.0}, diverged=frozenset({2}), planned=3),
    }
    assert Decision(arms, "a", scale=LESS).ranks["b"] == pytest.approx((62 + 62 + 72) / 3)
    assert Decision(arms, "a").ranks["b"] == pytest.approx(62)


SPEC = """\
name: toy
method: mae
data: {train: a, val: b}
train: {duration: {steps: 1}}
evals: {knn: {}, depth: {use: knn}}
hyper: {mask_ratio: {search: [0.5, 0.75]}}
search: {metric: %s}
"""


@pytest.mark.parametrize(
    ("metric", "objectives"),
    [
        ("eval/depth/top1", {"eval/depth/top1": "min"}),
        ("eval/knn/top1", {"eval/knn/top1": "min"}),
        ("max eval/depth/top1", {"eval/depth/top1": "max"}),
        ("[eval/depth/top1, pretrain/loss]", {"eval/depth/top1": "min", "pretrain/loss": "min"}),
    ],
)
def test_a_search_goes_the_metrics_own_way_unless_it_says_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, objectives: dict[str, str]
) -> None:
    monkeypatch.setattr(evaluator.load("knn"), "metrics", {"top1": LESS})
    (tmp_path / "s.yaml").write_text(SPEC % metric)
    found = sweepfile.read(tmp_path / "s.yaml")
    assert found.search
    assert found.search.objectives == objectives
    assert found.metrics == {"eval/depth/top1": LESS, "eval/knn/top1": LESS}


def test_a_number_that_is_no_score_is_searched_only_where_it_is_said_which_way(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SPEC.replace("depth: {use: knn}", "linear: {}") % "eval/linear/lr")
    with pytest.raises(SpecError, match=r"search\.metric: expected a metric such as .*, not 'eval/linear/lr'"):
        sweepfile.read(path)
    path.write_text(SPEC.replace("depth: {use: knn}", "linear: {}") % "min eval/linear/lr")
    found = sweepfile.read(path).search
    assert found
    assert found.objectives == {"eval/linear/lr": "min"}


def test_what_is_expected_goes_by_the_name_of_the_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    bare = "".join(line + "\n" for line in SPEC.splitlines() if not line.startswith(("search", "hyper")))
    path.write_text(bare + "expected: {default: {eval/depth/top1: 70}}\n")
    assert sweepfile.read(path).designs[0].expected == {"default": {"eval/depth/top1": 70}}
    path.write_text(bare + "expected: {default: {eval/depht/top1: 70}}\n")
    with pytest.raises(SpecError, match="did you mean 'eval/depth/top1'"):
        sweepfile.read(path)
