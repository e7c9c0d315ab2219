"""Figures of an ablation's results, and the colors of all figures.

Colors of lines have a contrast of 3 : 1 on white and on the page's dark paper, and differ for the color-blind:
tests/test_colors.py holds this. Areas are viridis.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.columns import compared
from selfsup.sweeps.report.crossed import Crossing
from selfsup.sweeps.report.hover import named_series, with_values
from selfsup.sweeps.report.table import Line, Table
from selfsup.sweeps.report.wording import clipped, heading, label, named
from selfsup.sweeps.spec.study import Factor

INK = "#767676"  # 4.5 : 1 on white, 4.1 : 1 on nearly black
BLUE, RED = "#0072b2", "#d62728"
KINDS = (BLUE, "#d55e00", "#8d05fc", "#a69172", "#9d4c71")
AMOUNTS = LinearSegmentedColormap.from_list("amounts", ["#385bd6", "#8a4fc4", "#c4458d", "#dd5f3e", "#c98200"])
DASHED: dict[str, Any] = {"linewidth": 0.6, "linestyle": (0, (3, 3))}
WIDTH, HEIGHT = 7.2, 1.9  # inches: of a page's text, of a panel
ACROSS = 4  # panels in a row at most
ROUNDING = 1e-6  # narrowest axis of differences: those of equal results are of rounding


def curves(tables: Sequence[Table]) -> Figure:
    """Draw a row of panels per numeric factor, a panel per metric."""
    figure, axes = grouped(len(tables), len(tables[0].metrics))
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
    with_values(axis)
    axis.axvline(amounts[factor.values.index(factor.default)], color=INK, **DASHED)
    axis.fill_between(
        x, *np.clip([mean - half, mean + half], *cells[0].scale.ends), color=BLUE, alpha=0.18, linewidth=0
    )
    named_series(axis.plot(x, mean, color=BLUE, linewidth=1.2)[0], "mean")
    for seed in sorted({seed for cell in cells for seed in cell.values}):
        own = [(place, cell.values[seed]) for place, cell in zip(x, cells, strict=True) if seed in cell.values]
        at, values = np.transpose(own)
        [line] = axis.plot(at, values, "o-", color=BLUE, linewidth=0.4, markersize=2.8, alpha=0.75, markeredgewidth=0)
        named_series(line, f"seed {seed}")
    failed = x[np.isnan(mean)]
    axis.plot(failed, np.full(len(failed), 0.04), "x", color=RED, ms=4, transform=axis.get_xaxis_transform())
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
    """Draw a forest plot: every arm but the default under its factor, a panel per metric."""
    rows: list[tuple[str, Line | None]] = []
    for table in tables:
        rows += [(table.title, None), *((line.label, line) for line in table.lines if not line.arm.default)]
    metrics = tables[0].metrics
    figure, axes = grouped(1, len(metrics), height=0.5 + 0.16 * len(rows), sharey=True)
    difference = ", difference to the default" if len(metrics) <= 2 else ""  # no room; the caption says it, too
    for metric, axis in zip(metrics, axes[0], strict=True):
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.set(xlabel=f"{heading(metric)}{difference}", ylim=(len(rows) - 0.5, -0.5))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        for y, (_, line) in enumerate(rows):
            if line:
                _effect(axis, y, line.label, line.cells[metric])
        if np.ptp(axis.get_xlim()) < ROUNDING:
            axis.set_xlim(-1, 1)
    axes[0, 0].set_yticks(range(len(rows)), [clipped(name) for name, _ in rows])
    for axis in axes[0, ::ACROSS]:
        for text, (_, line) in zip(axis.get_yticklabels(), rows, strict=True):
            text.set_fontweight("normal" if line else "bold")
    return figure


def _effect(axis: Axes, y: int, name: str, cell: Cell) -> None:
    if cell.difference is None:
        axis.plot(0.02, y, "x", color=RED, ms=4, transform=axis.get_yaxis_transform())
        return
    differs = cell.differs
    color = INK if not differs else BLUE if cell.scale.sign * cell.difference > 0 else RED
    fill = color if differs else "none"
    bar = axis.errorbar(cell.difference, y, xerr=cell.difference_half, fmt="o", color=color, mfc=fill, ms=3.5, lw=1)
    named_series(bar[0], f"{name}: {compared(cell)}")


def heat_map(metrics: Sequence[str], crossed: Crossing) -> Figure:
    """Draw one factor down and one across; a panel per metric."""
    down, across = crossed.down.values, crossed.across.values
    figure, axes = wrapped(len(metrics), 2, height=0.7 + 0.34 * len(down))
    for metric, axis in zip(metrics, axes, strict=True):
        _heat(axis, [[line.cells[metric] if line else None for line in row] for row in crossed.rows])
        axis.add_patch(
            Rectangle(crossed.default[::-1], 1, 1, fill=False, edgecolor=KINDS[1], linewidth=1.8, clip_on=False)
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
            color = RED if cell.mean is None else "white" if dark else "black"
            weight = "bold" if cell.best else "normal"
            axis.text(x + 0.5, y + 0.5, text, color=color, fontsize=6, weight=weight, ha="center", va="center")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def panels(rows: int, columns: int, *, height: float = HEIGHT, sharey: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH * min(1, columns / 2), rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def grouped(groups: int, number: int, *, height: float = HEIGHT, sharey: bool = False) -> tuple[Figure, Any]:
    """Return `number` panels for each of some groups, (groups, number): a row each, or rows where they are many."""
    across = min(number, ACROSS)
    figure, axes = panels(groups * math.ceil(number / across), across, height=height, sharey=sharey)
    axes = axes.reshape(groups, -1)
    for axis in axes[:, number:].flat:
        axis.set_axis_off()
    return figure, axes[:, :number]


def wrapped(number: int, columns: int, *, height: float = HEIGHT) -> tuple[Figure, Any]:
    """Return `number` panels in rows of at most `columns`."""
    figure, axes = panels(math.ceil(number / columns), min(number, columns), height=height)
    for axis in axes.flat[number:]:
        axis.set_axis_off()
    return figure, axes.flat[:number]


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
