"""The drawing of an ablation's figures. Colors: Okabe and Ito (2008) for lines, viridis for areas."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from selfsup.failures import COLLAPSE
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.crossed import Crossing
from selfsup.sweeps.report.table import Line, Table
from selfsup.sweeps.report.wording import heading, label, named
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor, Study

INK = "#767676"  # 4.5 : 1 on white, 4.1 : 1 on nearly black
BLUE, VERMILLION = "#0072b2", "#d55e00"
KINDS = (BLUE, VERMILLION, "#009e73", "#cc79a7", "#9f7f00")
AMOUNTS = LinearSegmentedColormap.from_list("amounts", [BLUE, "#9467bd", VERMILLION])  # lines on white and on black
DASHED: dict[str, Any] = {"linewidth": 0.6, "linestyle": (0, (3, 3))}
WIDTH, HEIGHT = 7.2, 1.9  # inches: of a page's text, of a panel
POINTS = 120  # of a learning curve
LOSS = "pretrain/loss"


def curves(tables: Sequence[Table]) -> Figure:
    """Draw a row of panels per numeric factor, a column per metric."""
    figure, axes = panels(len(tables), len(tables[0].metrics))
    for table, row in zip(tables, axes, strict=True):
        for metric, axis in zip(table.metrics, row, strict=True):
            assert table.factor
            _curve(axis, table.factor, table.lines, metric)
    return figure


def _curve(axis: Axes, factor: Factor, lines: Sequence[Line], metric: str) -> None:
    unit, amounts = numbers(factor)
    points = [(amounts[factor.values.index(line.arm.values[factor.path])], line.cells[metric]) for line in lines]
    points.sort(key=lambda pair: pair[0])
    x, cells = np.array([amount for amount, _ in points], float), [cell for _, cell in points]
    mean = np.array([cell.mean for cell in cells], float)  # None becomes nan, which is not drawn
    half = np.array([cell.half for cell in cells], float)
    axis.axvline(amounts[factor.values.index(factor.default)], color=INK, **DASHED)
    axis.fill_between(
        x, *np.clip([mean - half, mean + half], *cells[0].scale.ends), color=BLUE, alpha=0.18, linewidth=0
    )
    axis.plot(x, mean, color=BLUE, linewidth=1.2)
    seeds = [(place, value) for place, cell in zip(x, cells, strict=True) for value in cell.values.values()]
    axis.plot(*np.reshape(seeds, (-1, 2)).T, "o", color=BLUE, markersize=2.8, alpha=0.75, markeredgewidth=0)
    failed = x[np.isnan(mean)]
    axis.plot(failed, np.full(len(failed), 0.04), "x", color=VERMILLION, ms=4, transform=axis.get_xaxis_transform())
    if factor.log:
        axis.set_xscale("log")
    axis.set_xticks(x, _thinned(x.tolist(), (np.log(x) if factor.log else x).tolist()))
    axis.set(xlabel=f"{named(factor)}, {unit}" if unit else named(factor), ylabel=heading(metric))
    axis.minorticks_off()


def _thinned(values: Sequence[float], places: Sequence[float]) -> list[str]:
    """Return tick labels, empty where one would run into the one before."""
    labels, last = [], -math.inf
    for value, place in zip(values, places, strict=True):
        clear = place - last > 0.08 * (places[-1] - places[0])
        labels.append(label(value) if clear else "")
        last = place if clear else last
    return labels


def effects(tables: Sequence[Table]) -> Figure:
    """Draw a forest plot: every arm but the default under its factor, a column per metric."""
    rows: list[tuple[str, Line | None]] = []
    for table in tables:
        rows += [(table.title, None), *((line.label, line) for line in table.lines if not line.arm.default)]
    figure, axes = panels(1, len(tables[0].metrics), height=0.5 + 0.16 * len(rows), sharey=True)
    for metric, axis in zip(tables[0].metrics, axes[0], strict=True):
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.set(xlabel=f"{heading(metric)}, difference to the default", ylim=(len(rows) - 0.5, -0.5))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        for y, (_, line) in enumerate(rows):
            if line:
                _effect(axis, y, line.cells[metric])
    axes[0, 0].set_yticks(range(len(rows)), [name for name, _ in rows])
    for text, (_, line) in zip(axes[0, 0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if line else "bold")
    return figure


def _effect(axis: Axes, y: int, cell: Cell) -> None:
    if cell.difference is None:
        axis.plot(0.02, y, "x", color=VERMILLION, ms=4, transform=axis.get_yaxis_transform())
        return
    differs = cell.differs
    color = INK if not differs else BLUE if cell.scale.sign * cell.difference > 0 else VERMILLION
    fill = color if differs else "none"
    axis.errorbar(cell.difference, y, xerr=cell.difference_half, fmt="o", color=color, mfc=fill, ms=3.5, lw=1)


def heat_map(metrics: Sequence[str], crossed: Crossing) -> Figure:
    """Draw one factor down and one across; a panel per metric."""
    down, across = crossed.down.values, crossed.across.values
    figure, axes = _wrapped(len(metrics), 2, height=0.7 + 0.34 * len(down))
    for metric, axis in zip(metrics, axes, strict=True):
        _heat(axis, [[line.cells[metric] if line else None for line in row] for row in crossed.rows])
        axis.add_patch(
            Rectangle(crossed.default[::-1], 1, 1, fill=False, edgecolor=VERMILLION, linewidth=1.8, clip_on=False)
        )
        axis.set_xticks(np.arange(len(across)) + 0.5, [label(value) for value in across])
        axis.set_yticks(np.arange(len(down)) + 0.5, [label(value) for value in down])
        axis.set(title=heading(metric), xlabel=named(crossed.across), ylabel=named(crossed.down))
        axis.invert_yaxis()  # the rows of the table
    return figure


def _heat(axis: Axes, cells: Sequence[Sequence[Cell | None]]) -> None:
    """Draw the cells of one panel; None was never planned, and stays empty."""
    mean = np.ma.masked_invalid(np.array([[cell and cell.mean for cell in row] for row in cells], float))
    axis.pcolormesh(mean, cmap="viridis")
    for (y, x), value in np.ndenumerate(mean):
        if cell := cells[y][x]:
            dark = value < (mean.min() + mean.max()) / 2
            text = "×" if cell.mean is None else cell.text.replace(" ", "\n", 1) + "†" * (cell.tied and not cell.best)
            color = VERMILLION if cell.mean is None else "white" if dark else "black"
            weight = "bold" if cell.best else "normal"
            axis.text(x + 0.5, y + 0.5, text, color=color, fontsize=6, weight=weight, ha="center", va="center")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def losses(study: Study, tables: Sequence[Table], runs: Mapping[str, Result]) -> Figure:
    """Draw a panel per factor, or per value of a grid's first factor; one panel if nothing varies."""
    groups = [group for table in tables for group in _groups(table, study)]
    if not groups:
        return _one_loss(study.arms[0], runs)
    figure, axes = _wrapped(len(groups), 2 if len(groups) == 4 else 3)
    for axis, (title, factor, lines) in zip(axes, groups, strict=True):
        _loss(axis, factor, lines, runs)
        axis.set(title=title, xlabel="step", ylabel="loss")
        axis.legend(loc="upper right", labelspacing=0.25)
    return figure


def _one_loss(arm: Arm, runs: Mapping[str, Result]) -> Figure:
    figure, (axis,) = _wrapped(1, 1)
    for steps, values in arm_curves(arm, LOSS, runs):
        axis.plot(steps, values, color=BLUE, linewidth=1)
    axis.set(xlabel="step", ylabel="loss")
    return figure


def _loss(axis: Axes, factor: Factor, lines: Sequence[Line], runs: Mapping[str, Result]) -> None:
    colors = dict(zip(map(label, factor.values), _colors(factor), strict=True))
    names = {line.arm.name: label(line.arm.values[factor.path]) for line in lines}
    for line in lines:
        width = 0.6 + 0.4 * line.arm.default
        for steps, values in arm_curves(line.arm, LOSS, runs):
            axis.plot(steps, values, color=colors[names[line.arm.name]], linewidth=width)
    default = next((names[line.arm.name] for line in lines if line.arm.default), None)
    for name in dict.fromkeys(names.values()):
        axis.plot([], [], color=colors[name], linewidth=1, label=f"{name} (default)" if name == default else name)


def _groups(table: Table, study: Study) -> Iterator[tuple[str, Factor, list[Line]]]:
    """Yield title, the factor that the lines differ in, and the lines."""
    if table.factor:
        yield table.title, table.factor, list(table.lines)
    else:
        first, last = study.grid[0], study.grid[-1]
        for value in first.values:
            lines = [line for line in table.lines if line.arm.values[first.path] == value]
            if lines:
                yield f"{named(first)} {label(value)}, by {named(last)}", last, lines


def health(study: Study, runs: Mapping[str, Result]) -> Figure:
    """Draw feature deviation and effective rank over steps, a line per run."""
    figure, axes = panels(1, len(COLLAPSE))
    for (title, (name, limit)), axis in zip(COLLAPSE.items(), axes[0], strict=True):
        for arm in reversed(study.arms):  # the default above all others
            for steps, values in arm_curves(arm, name, runs):
                color = VERMILLION if values[-1] < limit else BLUE if arm.default else INK
                axis.plot(steps, values, color=color, linewidth=0.8, alpha=0.4 if color == INK else 1)
        axis.axhline(limit, color=VERMILLION, **DASHED)
        axis.set(xlabel="step", ylabel=title)
    return figure


def arm_curves(arm: Arm, name: str, runs: Mapping[str, Result]) -> Iterator[tuple[Sequence[int], Sequence[float]]]:
    """Yield steps and values of the arm's seeds that have such a curve: at most POINTS, evenly, with the last."""
    for id_ in arm.ids.values():
        if id_ in runs and (curve := runs[id_].curves.get(name)):
            at = np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))
            yield [curve[i][0] for i in at], [curve[i][1] for i in at]


def panels(rows: int, columns: int, *, height: float = HEIGHT, sharey: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH * min(1, columns / 2), rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def _wrapped(number: int, columns: int, *, height: float = HEIGHT) -> tuple[Figure, Any]:
    """Return `number` panels in rows of at most `columns`."""
    figure, axes = panels(math.ceil(number / columns), min(number, columns), height=height)
    for axis in axes.flat[number:]:
        axis.set_axis_off()
    return figure, axes.flat[:number]


def _colors(factor: Factor) -> Sequence[Any]:
    if numbers(factor)[1] or len(factor.values) > len(KINDS):
        return list(AMOUNTS(np.linspace(0, 1, len(factor.values))))
    return KINDS[: len(factor.values)]


def numbers(factor: Factor) -> tuple[str, list[float]]:
    """Return the unit, "epochs" for {epochs: 800} or "", and the values.

    No values where they are no numbers of one unit.
    """
    pairs = [
        next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", value)
        for value in factor.values
    ]
    amounts = [number for _, number in pairs if isinstance(number, int | float) and not isinstance(number, bool)]
    units = {unit for unit, _ in pairs}
    return (units.pop(), amounts) if len(units) == 1 and len(amounts) == len(pairs) else ("", [])
