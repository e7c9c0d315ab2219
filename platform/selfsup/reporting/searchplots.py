"""The figures of a search. A row is a trial, flat: number, settings by path, and by name the metrics that it has."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfsup.reporting.plots import BLUE, INK, VERMILLION, WIDTH, panels
from selfsup.reporting.wording import heading, shown, words

Row = Mapping[str, Any]


def history(rows: Sequence[Row], metric: str, *, higher: bool = True) -> Figure:
    """The metric of every trial in order, and the best so far; × has no result, as one that was stopped."""
    figure, axes = panels(1, 1)
    axis = axes[0, 0]
    number = [row["number"] for row in rows if metric in row]
    value = [row[metric] for row in rows if metric in row]
    lost = [row["number"] for row in rows if metric not in row]
    best = (np.maximum if higher else np.minimum).accumulate(value)
    axis.step(number, best, where="post", color=BLUE, linewidth=1.2)
    axis.plot(number, value, "o", color=INK, markersize=2.8, alpha=0.75, markeredgewidth=0)
    axis.plot(lost, np.full(len(lost), 0.04), "x", color=VERMILLION, ms=3, transform=axis.get_xaxis_transform())
    axis.set(xlabel="trial", ylabel=words(heading(metric)))
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """shares: path -> share of the variance that it explains; the largest on top."""
    ranked = sorted(shares.items(), key=lambda item: item[1])
    figure, axes = panels(1, 1, height=0.5 + 0.18 * len(ranked))
    axes[0, 0].barh([_name(path) for path, _ in ranked], [share for _, share in ranked], color=BLUE, height=0.6)
    axes[0, 0].set(xlabel="share of the variance", xlim=(0, None))
    axes[0, 0].tick_params(axis="y", length=0)
    return figure


def coordinates(
    rows: Sequence[Row], paths: Sequence[str], metric: str, *, log: Collection[str] = (), higher: bool = True
) -> Figure:
    """Parallel coordinates: a line is a trial through its settings, yellow and in front the best."""
    found = sorted((row for row in rows if metric in row), key=lambda row: float(row[metric]), reverse=not higher)
    paths = [path for path in paths if any(row.get(path) is not None for row in found)]
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(-0.1, max(len(paths), 2) - 0.9), ylim=(-0.12, 1.12), yticks=[])
    axis.set_xticks(range(len(paths)), [_name(path) for path in paths])
    axis.tick_params(axis="x", length=0)
    axis.spines[:].set_visible(False)
    places = np.array([_places(axis, at, found, path, log=path in log) for at, path in enumerate(paths)])
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(found)))
    for line, color in zip(places.T, colors, strict=True):
        axis.plot(line, color=color, linewidth=0.8, alpha=0.8)
    return figure


def _places(axis: Axes, at: int, rows: Sequence[Row], path: str, *, log: bool) -> NDArray[np.float64]:
    """Heights from 0 to 1, the axis drawn; nan, which is not drawn, for a trial without the setting."""
    values = [row.get(path) for row in rows]
    known = sorted({value for value in values if value is not None}, key=lambda value: (isinstance(value, str), value))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        scale = np.log if log else np.asarray
        marks, height = [known[0], known[-1]], scale(np.array(values, float))
        height = (height - scale(known[0])) / max(float(scale(known[-1]) - scale(known[0])), 1e-12)
    else:
        marks = known
        height = np.array([known.index(value) if value in known else np.nan for value in values])
        height = height / max(len(known) - 1, 1)
    axis.plot([at, at], [0, 1], color=INK, linewidth=0.6)
    for mark, place in zip(marks, np.linspace(0, 1, len(marks)), strict=True):
        text = f"{mark:.3g}" if isinstance(mark, float) else shown(mark)
        offset = {0: (0, -8), 1: (0, 4)}.get(place, (3, 2))  # ends beyond the lines, what is between beside them
        side = "left" if offset[0] else "center"
        axis.annotate(text, (at, place), offset, textcoords="offset points", fontsize=6.5, ha=side)
    return height


def pareto(rows: Sequence[Row], across: str, up: str, *, higher: tuple[bool, bool]) -> Figure:
    """Two objectives, whether higher is better of each; trials that no other beats in both are blue and joined."""
    found = [(float(row[across]), float(row[up])) for row in rows if across in row and up in row]
    signed = np.reshape(found, (-1, 2)) * np.where(higher, 1, -1)
    beaten = [bool(((signed >= one).all(1) & (signed > one).any(1)).any()) for one in signed]
    best = sorted(point for point, lost in zip(found, beaten, strict=True) if not lost)
    figure, axes = panels(1, 1)
    others = [point for point, lost in zip(found, beaten, strict=True) if lost]
    axes[0, 0].plot(*np.reshape(others, (-1, 2)).T, "o", color=INK, ms=2.8, alpha=0.6, markeredgewidth=0)
    axes[0, 0].plot(*np.reshape(best, (-1, 2)).T, "o-", color=BLUE, ms=3.5, linewidth=1)
    axes[0, 0].set(xlabel=words(heading(across)), ylabel=words(heading(up)))
    return figure


def _name(path: str) -> str:
    return words(path.rpartition(".")[2])
