"""Learning curves: training loss, evaluations, spread of embeddings, over steps. A color is a value of the factor."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from selfsup.failures import COLLAPSE
from selfsup.progress import several
from selfsup.sweeps.report.hover import named_series, with_values
from selfsup.sweeps.report.plots import AMOUNTS, BLUE, DASHED, HEIGHT, KINDS, RED, numbers, panels, wrapped
from selfsup.sweeps.report.table import Table
from selfsup.sweeps.report.wording import clipped, heading, label, named
from selfsup.sweeps.result import Curve, Result
from selfsup.sweeps.spec.study import Arm, Factor, Study

LOSS = "pretrain/loss"
POINTS = 120  # of a curve that is drawn
STYLES = ("-", "--", ":", "-.")  # the second five values of what is no number are dashed, and so on
INSIDE = 4  # entries of a legend that have room in the panel


class Panel(NamedTuple):
    """Arms that are drawn together. factor: what they differ in; None where an arm is alone."""

    title: str
    factor: Factor | None
    arms: Sequence[Arm]


def panels_of(study: Study, tables: Sequence[Table]) -> list[Panel]:
    """Return a panel per factor, or per value of a grid's first factor; one where nothing varies."""
    return [panel for table in tables for panel in _panels(table, study)] or [Panel("", None, study.arms[:1])]


def _panels(table: Table, study: Study) -> Iterator[Panel]:
    arms = [line.arm for line in table.lines]
    if table.factor:
        yield Panel(table.title, table.factor, arms)
        return
    first, last = study.grid[0], study.grid[-1]
    for value in first.values:
        if chosen := [arm for arm in arms if arm.values[first.path] == value]:
            yield Panel(f"{named(first)} {label(value)}, by {named(last)}", last, chosen)


def losses(groups: Sequence[Panel], runs: Mapping[str, Result]) -> Figure:
    """Draw the training loss, a panel per group."""
    columns = 2 if len(groups) in (2, 4) else 3
    figure, axes = wrapped(len(groups), columns, height=max(HEIGHT, _legend_height(groups)))
    for group, axis in zip(groups, axes, strict=True):
        _draw(axis, LOSS, group, runs)
        axis.set(title=group.title, xlabel="step", ylabel="loss")
        _legend(axis, group)
    return figure


def evaluations(groups: Sequence[Panel], metrics: Sequence[str], runs: Mapping[str, Result]) -> Figure:
    """Draw evaluations during training, a panel per group and metric."""
    both = [(group, metric) for group in groups for metric in metrics]
    columns = 2 if len(both) in (2, 4) else 3
    figure, axes = wrapped(len(both), columns, height=max(HEIGHT, _legend_height(groups)))
    for (group, metric), axis in zip(both, axes, strict=True):
        _draw(axis, metric, group, runs)
        axis.set(title=group.title, xlabel="step", ylabel=heading(metric))
        _legend(axis, group, outside=True)
    return figure


def health(groups: Sequence[Panel], runs: Mapping[str, Result]) -> Figure:
    """Draw feature deviation and effective rank, a row per group; a cross where a seed ends below the limit."""
    figure, axes = panels(len(groups), len(COLLAPSE), height=max(1.6, _legend_height(groups)))
    for group, row in zip(groups, axes, strict=True):
        for (title, (name, limit)), axis in zip(COLLAPSE.items(), row, strict=True):
            _draw(axis, name, group, runs)
            ends = [(steps[-1], values[-1]) for arm in group.arms for _, steps, values in arm_curves(arm, name, runs)]
            collapsed = [end for end in ends if end[1] < limit]
            axis.plot(*np.reshape(collapsed, (-1, 2)).T, "x", color=RED, ms=4)
            axis.axhline(limit, color=RED, **DASHED)
            axis.set(title=group.title, xlabel="step", ylabel=title)
        _legend(axis, group, outside=True)
    return figure


def arm_curves(arm: Arm, name: str, runs: Mapping[str, Result]) -> Iterator[tuple[int, Sequence[int], Sequence[float]]]:
    """Yield seed, steps and values of every run that has such a curve: at most POINTS, evenly, with the last."""
    for seed, curve in _curves(arm, name, runs).items():
        yield (seed, *_thinned(curve))


def _curves(arm: Arm, name: str, runs: Mapping[str, Result]) -> dict[int, Curve]:
    """-> seed: its curve, of seeds that have one."""
    curves = {seed: runs[key].curves.get(name, ()) for seed, key in sorted(arm.ids.items()) if key in runs}
    return {seed: curve for seed, curve in curves.items() if curve}


def _thinned(curve: Curve) -> tuple[list[int], list[float]]:
    at = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
    return [curve[i][0] for i in at], [curve[i][1] for i in at]


def _mean(curves: Sequence[Curve]) -> Curve:
    """Return the mean at each step that all seeds have."""
    values = [dict(curve) for curve in curves]
    shared = [step for step, _ in curves[0] if all(step in seed for seed in values)]
    return [(step, float(np.mean([seed[step] for seed in values]))) for step in shared]


def _draw(axis: Axes, name: str, group: Panel, runs: Mapping[str, Result]) -> None:
    """Draw a thin line per seed and, where an arm has several, a thick one of their mean; the default above others."""
    with_values(axis)
    looks = looks_of(group.factor)
    for arm in sorted(group.arms, key=lambda arm: arm.default):
        text, curves = _text(group.factor, arm), _curves(arm, name, runs)
        style = looks[text]
        alone = len(curves) == 1
        for seed, steps, values in arm_curves(arm, name, runs):
            look = style | {"marker": "o", "markersize": 3} if len(steps) == 1 else style
            (line,) = axis.plot(steps, values, linewidth=1 if alone else 0.6, alpha=1 if alone else 0.6, **look)
            named_series(line, ", ".join(filter(None, [text, f"seed {seed}"])))
        if len(curves) > 1:
            (line,) = axis.plot(*_thinned(_mean(list(curves.values()))), linewidth=1.3, **style)
            named_series(line, ", ".join(filter(None, [text, f"mean of {several(len(curves), 'seed')}"])))


def looks_of(factor: Factor | None) -> dict[str, dict[str, Any]]:
    """-> value, as it is written: color and line style; an ordered scale for numbers, distinct colors for others."""
    if factor is None:
        return {"": {"color": BLUE}}
    texts = [label(value) for value in factor.values]
    if numbers(factor)[1]:
        scale = AMOUNTS(np.linspace(0, 1, len(texts)))
        return {text: {"color": tuple(color)} for text, color in zip(texts, scale, strict=True)}
    return {
        text: {"color": KINDS[at % len(KINDS)], "linestyle": STYLES[at // len(KINDS) % len(STYLES)]}
        for at, text in enumerate(texts)
    }


def _text(factor: Factor | None, arm: Arm) -> str:
    return label(arm.values[factor.path]) if factor else ""


def _legend_height(groups: Sequence[Panel]) -> float:
    """Return the inches that the longest legend needs."""
    return 0.3 + 0.14 * max(len(group.arms) for group in groups)


def _legend(axis: Axes, group: Panel, *, outside: bool = False) -> None:
    """Name the values, in their order, beside the panel where there are many."""
    looks, arms = looks_of(group.factor), {_text(group.factor, arm): arm for arm in group.arms}
    if group.factor is None:
        return
    handles = [
        Line2D([], [], linewidth=1.3, label=clipped(text) + " (default)" * arms[text].default, **style)
        for text, style in looks.items()
        if text in arms
    ]
    beside = outside or len(handles) > INSIDE
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if beside else {"loc": "upper right"}
    axis.legend(handles=handles, labelspacing=0.25, **place)
