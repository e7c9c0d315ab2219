"""Figures hold the numbers of the tables, and are the same bytes each time."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from toy_sweep import KNN, RATIO, study, sweep

from selfsup import recall
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.figures import drawings
from selfsup.sweeps.report.learning import POINTS, health, looks_of, losses, panels_of
from selfsup.sweeps.report.plots import (
    AMOUNTS,
    BLUE,
    INK,
    RED,
    curves,
    effects,
    heat_map,
    numbers,
)
from selfsup.sweeps.report.table import Ablation, Table
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.report.wording import clipped
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Factor

FACTORS = {
    "0.75, 8": [60.0, 62.0, 61.0],
    "0.5, 8": [40.0, 42.0, 41.0],
    "0.9, 8": ["out of memory"] * 3,
    "0.75, 4": [61.5, 60.5, 62.0],
    "0.75, 12": [80.0, 82.0, 81.0],
}
GRID = {"0.75, 8": [61.0, 61.0], "0.75, 4": [20.0, 22.0], "0.5, 8": [70.0, 70.0], "0.5, 4": ["failed", "failed"]}


def made(numbers: dict[str, list[float | str]] | dict[str, list[float]], *, grid: bool = False) -> Ablation:
    one, results = study(numbers, grid=grid)
    return ablation(sweep(one), results)


def learned(result: Result, *, std: float = 0.5) -> Result:
    steps = range(0, 5000, 5)
    held = {"loss": 3.0, "feature_std": std, "rankme": 30.0}
    return replace(
        result, curves={f"pretrain/{name}": [(step, value) for step in steps] for name, value in held.items()}
    )


def test_a_curve_runs_through_the_means_past_every_seed() -> None:
    ratio = made(FACTORS).tables[0]
    axis = curves([ratio]).axes[0]
    default, means, *seeds, lost = axis.lines
    assert default.get_xdata() == [0.75, 0.75]
    np.testing.assert_array_equal(means.get_data(), [[0.5, 0.75, 0.9], [41, 61, np.nan]])
    assert [np.transpose(seed.get_data()).tolist() for seed in seeds] == [
        [[0.5, low], [0.75, high]] for low, high in ((40, 60), (42, 62), (41, 61))
    ]
    assert list(lost.get_xdata()) == [0.9]
    band = axis.collections[0].get_paths()[0].vertices
    half = next(line.cells[KNN].half for line in ratio.lines if line.label == "0.5")
    assert half
    assert sorted({y for x, y in np.asarray(band) if x == 0.5}) == pytest.approx([41 - half, 41 + half])


def test_a_schedule_is_a_numeric_factor_too() -> None:
    assert numbers(Factor("train.duration", ({"epochs": 800}, {"epochs": 100}), {"epochs": 800}, None, False)) == (
        "epochs",
        [800, 100],
    )
    for values in (({"epochs": 8}, {"steps": 9}), (True, False), (1, {"epochs": 8}), ({"a": 1, "b": 2}, {"a": 1})):
        assert numbers(Factor("x", values, values[0], None, False))[1] == []
    one, results = study({"0.75, 8": [60.0], "0.5, 8": [40.0], "0.9, 8": [50.0]})
    epochs = {0.75: {"epochs": 400}, 0.5: {"epochs": 800}, 0.9: {"epochs": 100}}
    arms = [replace(arm, values={RATIO: epochs[arm.values[RATIO]]}) for arm in one.arms]
    factor = Factor(RATIO, tuple(epochs.values()), epochs[0.75], None, False)
    axis = curves(ablation(sweep(replace(one, arms=tuple(arms), factors=(factor,))), results).tables).axes[0]
    np.testing.assert_array_equal(axis.lines[1].get_data(), [[100, 400, 800], [50, 60, 40]])
    assert axis.lines[0].get_xdata() == [400, 400]
    assert axis.get_xlabel() == "mask ratio, epochs"


def test_what_rounding_leaves_is_no_difference() -> None:
    [knn, *_] = effects(made({"0.75, 8": [95.83333333333333], "0.5, 8": [95.83333333333334]}).tables).axes
    assert knn.get_xlim() == (-1, 1)
    assert [line.get_xdata()[0] for line in knn.lines if line.get_marker() == "o"] == pytest.approx([0], abs=1e-12)


def test_the_forest_is_filled_where_an_effect_is_certain() -> None:
    axis = effects(made(FACTORS).tables).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "mask ratio",
        "0.5",
        "0.9",
        "decoder depth",
        "4",
        "12",
    ]
    found = {int(line.get_ydata()[0]): line for line in axis.lines if line.get_marker() in ("o", "x")}
    assert {y: to_hex(line.get_color()) for y, line in found.items()} == {1: RED, 2: RED, 4: INK, 5: BLUE}
    assert [found[y].get_markerfacecolor() for y in (1, 4, 5)] == [RED, "none", BLUE]
    assert [float(found[y].get_xdata()[0]) for y in (1, 4, 5)] == pytest.approx([-20, 1 / 3, 20])
    assert found[2].get_marker() == "x"


@pytest.mark.parametrize("draw", [curves, effects])
def test_many_metrics_stand_in_rows_whose_labels_do_not_meet(draw: Callable[[Sequence[Table]], Figure]) -> None:
    tables = [replace(table, metrics=(KNN,) * 6) for table in made(FACTORS).tables if table.factor]
    figure = draw(tables)
    figure.draw_without_rendering()
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == 6 * (len(tables) if draw is curves else 1)
    assert all(axis.get_position().width * figure.get_figwidth() > 1 for axis in shown)
    boxes = [axis.xaxis.label.get_window_extent() for axis in shown]
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    names = [[text.get_text() for text in axis.get_yticklabels() if text.get_visible()] for axis in shown]
    assert names[0] == names[4], "the first of each row has the names of arms"


def test_a_heat_map_has_every_combination_in_its_place() -> None:
    whole = made(GRID, grid=True)
    found = crossing(whole.tables[0])
    assert found
    axis = heat_map([KNN], found).axes[0]
    texts = {text.get_position(): text.get_text().partition("\n")[0] for text in axis.texts}
    assert texts == {(0.5, 0.5): "×", (1.5, 0.5): "70.00", (0.5, 1.5): "21", (1.5, 1.5): "61.00"}
    assert axis.patches[0].get_xy() == (1, 1)  # the default: depth 8 across, ratio 0.75 down
    assert axis.yaxis_inverted()  # rows from above, as in the table


def test_a_default_beside_the_grid_leaves_the_rest_of_its_row_empty() -> None:
    numbers = {"0.75, 8": [61.0], "0.5, 4": [20.0], "0.5, 12": [22.0], "0.9, 4": [70.0], "0.9, 12": [71.0]}
    found = crossing(made(numbers, grid=True).tables[0])
    assert found
    axis = heat_map([KNN], found).axes[0]
    places = {text.get_position() for text in axis.texts}
    assert places == {(x, y) for x in (0.5, 2.5) for y in (0.5, 2.5)} | {(1.5, 1.5)}


@pytest.mark.parametrize("numbers", [FACTORS, GRID, {"0.75, 8": [50.0], "0.5, 8": [40.0]}])
def test_the_same_bytes_each_time_without_a_date_and_transparent(numbers: dict[str, list[float]]) -> None:
    one, results = study(numbers, grid=numbers is GRID)
    whole = ablation(sweep(one), [learned(result) for result in results])
    first, second = drawings(whole), drawings(whole)
    assert [drawing.kind for drawing in first] == [*(["grid"] if one.grid else ["curves"]), "effects", "loss", "health"]
    for drawing, again in zip(first, second, strict=True):
        text = drawing.svg
        assert text == again.svg
        assert b"date" not in text
        assert ElementTree.fromstring(text).tag.endswith("svg")
    assert first[1].png == second[1].png
    assert Image.open(io.BytesIO(first[1].png)).getpixel((0, 0))[3] == 0


def test_a_command_draws_again_only_what_shows_other_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, results = study(FACTORS)
    runs = [learned(result) for result in results]
    monkeypatch.setattr(recall, "_homes", [lambda: tmp_path])

    def made(changed: list[Result]) -> tuple[list[bytes], set[str]]:
        """-> all figures, and the kinds of those that were drawn for them."""
        shown = drawings(ablation(sweep(one), changed))
        return [drawing.svg for drawing in shown], {drawing.kind for drawing in shown if "figure" in vars(drawing)}

    first, drawn = made(runs)
    assert drawn == {"curves", "effects", "loss", "health"}
    assert made(runs) == (first, set())
    other = [replace(runs[0], metrics=runs[0].metrics | {KNN: 1.0}), *runs[1:]]
    assert made(other)[1] == {"curves", "effects"}
    curves = runs[0].curves | {"pretrain/loss": [(0, 1.0), (4, 2.0)]}
    assert made([replace(runs[0], curves=curves), *runs[1:]])[1] == {"loss"}
    changed = made(other)[0]
    monkeypatch.setattr(recall, "_homes", [])
    assert made(other)[0] == changed, "as it is drawn anew"


def test_long_curves_are_thinned_and_collapsed_arms_named() -> None:
    one, results = study({"0.75, 8": [50.0, 51.0], "0.5, 8": [40.0, 41.0]})
    found = [learned(result, std=0.01 if "0.5" in result.id else 0.5) for result in results]
    _, _, loss, health = drawings(ablation(sweep(one), found))
    longest = max(lengths(loss.figure.axes[0].lines))
    assert longest == POINTS
    assert health.caption.endswith("(mask_ratio=0.5).")


def test_a_study_of_one_arm_shows_the_loss_of_its_seeds() -> None:
    one, results = study({"0.75, 8": [50.0, 51.0]})
    alone = replace(one, factors=(), grid=())
    loss, health = drawings(ablation(sweep(alone), [learned(result) for result in results]))
    assert (loss.kind, health.kind) == ("loss", "health")
    assert [len(axis.lines) for axis in loss.figure.axes] == [3]  # and their mean


def test_a_learning_curve_has_the_color_of_its_value_thin_for_a_seed_and_thick_for_their_mean() -> None:
    one, results = study({"0.75, 8": [50.0, 51.0], "0.5, 8": [40.0, 41.0], "0.9, 8": [30.0, 31.0]})
    found = [
        replace(run, curves={"pretrain/loss": [(step, number + step) for step in range(3 + run.seed)]})
        for number, run in enumerate(results)
    ]
    axis = losses(panels_of(one, ablation(sweep(one), found).tables), {run.id: run for run in found}).axes[0]
    order = [0.5, 0.9, 0.75]  # the default above the others
    colors = dict(zip((0.5, 0.75, 0.9), (to_hex(AMOUNTS(place)) for place in (0.0, 0.5, 1.0)), strict=True))
    assert [to_hex(line.get_color()) for line in axis.lines] == [colors[ratio] for ratio in order for _ in range(3)]
    assert [line.get_linewidth() for line in axis.lines[:3]] == [0.6, 0.6, 1.3]
    first, second, mean = axis.lines[:3]
    np.testing.assert_array_equal(first.get_data(), [[0, 1, 2], [2, 3, 4]])
    np.testing.assert_array_equal(second.get_data(), [[0, 1, 2, 3], [3, 4, 5, 6]])
    np.testing.assert_array_equal(mean.get_data(), [[0, 1, 2], [2.5, 3.5, 4.5]])  # where both seeds are
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0.5", "0.75 (default)", "0.9"]


def test_evaluations_during_training_are_a_panel_each() -> None:
    one, results = study({"0.75, 8": [60.0, 62.0]})
    curve = {KNN: [(step, 60.0 + step) for step in (2, 4, 6)]}
    learned = [replace(run, curves=curve) for run in results]
    drawn = {drawing.kind: drawing for drawing in drawings(ablation(sweep(one), learned))}
    [axis] = drawn["evaluations"].figure.axes
    assert axis.get_ylabel() == "knn top-1"
    assert [*axis.lines[0].get_xydata()[-1]] == [6.0, 66.0]
    assert "evaluations" not in {drawing.kind for drawing in drawings(ablation(sweep(one), results))}


def test_values_that_are_no_numbers_differ_in_color_or_dashes() -> None:
    names = tuple("abcdefghijkl")
    looks = looks_of(Factor("optim.name", names, "a", None, False))
    assert list(looks) == list(names)
    assert len({(look["color"], look["linestyle"]) for look in looks.values()}) == len(names)


def test_long_names_leave_room_for_the_curves() -> None:
    assert clipped("hyper") == "hyper"
    name = "my_lab.models:residual_network_variant_3"
    assert (clipped(name), len(clipped(name))) == ("my_lab.m…network_variant_3", 26)


def test_a_seed_that_ends_collapsed_has_a_red_cross() -> None:
    one, results = study({"0.75, 8": [50.0, 51.0], "0.5, 8": [40.0, 41.0]})
    found = {run.id: learned(run, std=0.01 if run.id == results[2].id else 0.5) for run in results}
    spread, rank = health(panels_of(one, ablation(sweep(one), list(found.values())).tables), found).axes
    crosses = [[line for line in axis.lines if line.get_marker() == "x"] for axis in (spread, rank)]
    assert [[line.get_xydata().tolist() for line in lines] for lines in crosses] == [[[[4995, 0.01]]], [[]]]
    assert {line.get_color() for lines in crosses for line in lines} == {RED}


def lengths(lines: Sequence[object]) -> list[int]:
    return [len(line.get_xdata()) for line in lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize("numbers", [FACTORS, GRID])
def test_a_sweep_that_has_not_begun_can_be_drawn(numbers: dict[str, list[float]]) -> None:
    one, _ = study(numbers, grid=numbers is GRID)
    for drawing in drawings(ablation(sweep(one), [])):
        assert drawing.svg


def test_bands_end_at_0_and_100() -> None:
    ratio = made({"0.75, 8": [99.0, 98.0, 95.0], "0.5, 8": [1.0, 4.0, 2.0]}).tables[0]
    band = np.asarray(curves([ratio]).axes[0].collections[0].get_paths()[0].vertices)
    assert (band[:, 1].min(), band[:, 1].max()) == (0, 100)
