"""Figures of searches hold the numbers of the trials."""

import itertools
import random

import numpy as np

from selfsup.reporting.searchplots import coordinates, history, importance, pareto

KNN, HOURS, RATIO, RATE, KIND = "eval/knn/top1", "pretrain/gpu_hours", "hyper.mask_ratio", "optim.lr", "optim.schedule"
ROWS = [
    {"number": 0, RATIO: 0.5, RATE: 1e-4, KIND: "cosine", KNN: 50.0},
    {"number": 1, RATIO: 0.6, RATE: 1e-3, KIND: "linear"},
    {"number": 2, RATIO: 0.9, RATE: 1e-2, KIND: "linear", KNN: 40.0},
    {"number": 3, RATIO: 0.7, RATE: 1e-3, KNN: 60.0},
]


def test_history_shows_each_trial_the_best_so_far_and_those_without_a_result() -> None:
    best, each, lost = history(ROWS, KNN).axes[0].lines
    assert list(best.get_ydata()) == [50, 50, 60]
    assert list(each.get_xdata()) == [0, 2, 3]
    assert list(lost.get_xdata()) == [1]
    assert list(history(ROWS, KNN, higher=False).axes[0].lines[0].get_ydata()) == [50, 40, 40]


def test_coordinates_put_the_best_in_front() -> None:
    axis = coordinates(ROWS, [RATIO, RATE, KIND], KNN, log=[RATE]).axes[0]
    heights = [line.get_ydata() for line in axis.lines[3:]]  # after the three axes
    np.testing.assert_allclose(heights, [[1, 1, 1], [0, 0, 0], [0.5, 0.5, np.nan]], atol=1e-12)
    assert [text.get_text() for text in axis.texts] == ["0.5", "0.9", "0.0001", "0.01", "cosine", "linear"]


def test_importance_has_the_largest_on_top() -> None:
    axis = importance({RATIO: 0.2, RATE: 0.7, KIND: 0.1}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["schedule", "mask ratio", "lr"]
    assert [bar.get_width() for bar in axis.patches] == [0.1, 0.2, 0.7]


def test_the_front_is_what_nothing_beats() -> None:
    draw = random.Random(0)
    points = [(draw.randint(0, 9), draw.randint(0, 9)) for _ in range(60)]  # with ties and repetitions
    beaten = {
        (hours, top)
        for (hours, top), (less, more) in itertools.product(points, points)
        if less <= hours and more >= top and (less, more) != (hours, top)
    }
    rows = [{"number": i, HOURS: hours, KNN: top} for i, (hours, top) in enumerate(points)]
    front = pareto([*rows, {"number": 60, HOURS: 1.0}], HOURS, KNN, higher=(False, True)).axes[0].lines[1]
    assert set(zip(*front.get_data(), strict=True)) == set(points) - beaten


def test_a_search_without_a_result_can_be_drawn() -> None:
    rows = [ROWS[1]]
    assert history(rows, KNN).axes[0].lines[2].get_xdata() == [1]
    assert coordinates(rows, [RATIO, RATE], KNN).axes
    assert pareto(rows, HOURS, KNN, higher=(False, True)).axes
