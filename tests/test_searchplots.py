"""Figures of searches hold the numbers of the trials."""

import numpy as np
from toy_search import KIND, KNN, RATE, RATIO, SECONDS

from selfsup.sweeps.report.plots import BLUE
from selfsup.sweeps.report.searchplots import coordinates, history, importance_bars, pareto

ROWS = [
    {"number": 1, RATIO: 0.5, RATE: 1e-4, KIND: "cosine", KNN: 50.0, SECONDS: 9.0},
    {"number": 2, RATIO: 0.6, RATE: 1e-3, KIND: "linear"},
    {"number": 3, RATIO: 0.9, RATE: 1e-2, KIND: "linear", KNN: 40.0, SECONDS: 5.0},
    {"number": 4, RATIO: 0.7, RATE: 1e-3, KNN: 60.0, SECONDS: 10.0},
    {"number": 5, RATIO: 0.7, RATE: 1e-3, KNN: 49.0, SECONDS: 9.5},
]


def test_history_shows_each_trial_the_best_so_far_and_those_without_a_result() -> None:
    top, least = history(ROWS, {KNN: "max", SECONDS: "min"}).axes
    best, each, lost = top.lines
    assert list(best.get_ydata()) == [50, 50, 60, 60]
    assert list(each.get_xdata()) == [1, 3, 4, 5]
    assert list(lost.get_xdata()) == [2]
    assert list(least.lines[0].get_ydata()) == [9, 5, 5, 5]


def test_coordinates_run_from_the_settings_to_the_result_with_the_best_in_front() -> None:
    axis = coordinates(ROWS[:4], [RATIO, RATE, KIND], {KNN: "max"}, log=[RATE]).axes[0]
    lines = [list(zip(*line.get_data(), strict=True)) for line in axis.lines[4:]]  # after the four axes
    expected = [
        [(0, 0.25), (1, 0.5), (2, 1)],  # without a result, behind all others
        [(0, 1), (1, 1), (2, 1), (3, 0)],
        [(0, 0), (1, 0), (2, 0), (3, 0.5)],
        [(0, 0.5), (1, 0.5), (3, 1)],  # has no schedule
    ]
    for line, points in zip(lines, expected, strict=True):
        np.testing.assert_allclose(line, points, atol=1e-12)
    shown = [text.get_text() for text in axis.texts]
    assert shown == ["0.5", "0.9", "0.0001", "0.01", "cosine", "linear", "40", "60"]


def test_coordinates_of_least() -> None:
    *_, front = coordinates(ROWS, [RATIO], {SECONDS: "min"}).axes[0].lines
    assert list(front.get_ydata()) == [1, 0]  # the highest ratio, the fewest seconds


def test_bars_have_the_largest_on_top() -> None:
    axis = importance_bars({RATIO: 0.2, RATE: 0.7, KIND: 0.1}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["schedule", "mask ratio", "lr"]
    assert [bar.get_width() for bar in axis.patches] == [0.1, 0.2, 0.7]


def test_the_front_is_joined_in_order() -> None:
    others, joined = pareto(ROWS, {KNN: "max", SECONDS: "min"}).axes[0].lines
    assert list(zip(*joined.get_data(), strict=True)) == [(5, 40), (9, 50), (10, 60)]
    assert joined.get_color() == BLUE
    assert list(zip(*others.get_data(), strict=True)) == [(9.5, 49)]


def test_three_metrics_have_a_panel_for_each_but_the_first() -> None:
    rows = [row | {"pretrain/loss": float(i)} for i, row in enumerate(ROWS)]
    figure = pareto(rows, {KNN: "max", SECONDS: "min", "pretrain/loss": "min"})
    assert [axis.get_xlabel() for axis in figure.axes] == ["pretrain seconds", "pretrain loss"]
    assert {len(axis.lines[1].get_xdata()) for axis in figure.axes} == {3}
