"""Figures in a page name their lines, and hold the axes from which the values of points follow."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from toy_sweep import study, sweep

from selfsup.sweeps.report.figures import drawings
from selfsup.sweeps.report.tables import ablation

G = "{http://www.w3.org/2000/svg}"
NUMBERS = {"0.75, 8": [60.0, 62.0], "0.5, 8": [40.0, 42.0], "0.9, 8": [50.0, 52.0]}


def value(axis: dict, place: float) -> float:
    low, high = map(math.log, axis["ends"]) if axis["log"] else axis["ends"]
    amount = low + (place - axis["at"][0]) / (axis["at"][1] - axis["at"][0]) * (high - low)
    return math.exp(amount) if axis["log"] else amount


def points(series: ElementTree.Element) -> list[tuple[float, float]]:
    marks = series.findall(f".//{G}use")
    if marks:
        return [(float(mark.attrib["x"]), float(mark.attrib["y"])) for mark in marks]
    numbers = [float(word) for word in series.find(f"{G}path").attrib["d"].split() if word not in "MLz"]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def panels(kind: str, *, log: bool = False) -> list[tuple[list[dict], dict[str, list[tuple[float, float]]]]]:
    """-> for every panel its axes, and the places of the points of each named series."""
    one, results = study(NUMBERS)
    if log:
        one = replace(one, factors=tuple(replace(factor, log=True) for factor in one.factors))
    learned = [replace(run, curves={"pretrain/loss": [(0, 3.5), (100, 1.25), (101, 0.5)]}) for run in results]
    (drawing,) = [d for d in drawings(ablation(sweep(one), learned)) if d.kind == kind]
    root = ElementTree.fromstring(drawing.svg)
    return [
        (json.loads(panel.attrib["data-axes"]), {g.find(f"{G}title").text: points(g) for g in _series(panel)})
        for panel in root.iter(f"{G}g")
        if "data-axes" in panel.attrib
    ]


def _series(panel: ElementTree.Element) -> list[ElementTree.Element]:
    return [g for g in panel.iter(f"{G}g") if g.attrib.get("class") == "series"]


@pytest.mark.parametrize("log", [False, True])
def test_values_of_points_follow_from_the_axes(log: bool) -> None:
    ((axes, series),) = panels("curves", log=log)
    assert [axis["name"] for axis in axes] == ["mask ratio", "knn top-1"]
    found = {name: [[value(*side) for side in zip(axes, p, strict=True)] for p in series[name]] for name in series}
    expected = {
        "mean": [(0.5, 41), (0.75, 61), (0.9, 51)],
        "seed 0": [(0.5, 40), (0.75, 60), (0.9, 50)],
        "seed 1": [(0.5, 42), (0.75, 62), (0.9, 52)],
    }
    assert found.keys() == expected.keys()
    for name, places in expected.items():
        assert [tuple(place) for place in found[name]] == [pytest.approx(place, rel=1e-4) for place in places]


def test_a_learning_curve_is_named_by_its_value_and_seed() -> None:
    ((axes, series),) = panels("loss")
    names = [f"{ratio}, {of}" for ratio in (0.5, 0.75, 0.9) for of in ("mean of 2 seeds", "seed 0", "seed 1")]
    assert sorted(series) == names
    for places in series.values():
        found = [[value(*side) for side in zip(axes, place, strict=True)] for place in places]
        assert found == [pytest.approx(pair, rel=1e-4, abs=1e-3) for pair in [(0, 3.5), (100, 1.25), (101, 0.5)]]
