"""The figures of a search. A row is a trial, flat: number, study, settings by path, and metrics."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from selfsup.knob import Range
from selfsup.sweeps.report.figures import Drawing
from selfsup.sweeps.report.hover import named_series, with_values
from selfsup.sweeps.report.importance import importance, num_best
from selfsup.sweeps.report.plots import (
    AMOUNTS,
    BLUE,
    INK,
    RED,
    WIDTH,
    panels,
)
from selfsup.sweeps.report.wording import heading, label, short, words
from selfsup.sweeps.spec.axes import short_names
from selfsup.sweeps.spec.trials import SearchResult, Trial, front

HISTORY = "Trials in the order in which they began. Line: the best so far; ×: no result, as of one that was stopped."
FRONT = "Trials with a result. Blue: the Pareto front, which no other trial beats in everything."
SHARES = "What sets the best {top} of {n} trials apart: shares of the knobs by PED-ANOVA, which add up to 1."
LINES = (
    "A trial is a line through its settings to its result, from blue for the worst over pink to orange for the best; "
    "thin: without a result.{}"
)

Row = Mapping[str, Any]
Objectives = Mapping[str, str]  # metric -> min or max


def drawings(search_result: SearchResult | None) -> list[Drawing]:
    """Return every figure that has trials."""
    if search_result is None or not search_result.ended:
        return []
    objectives, shares = search_result.search.objectives, importance(search_result)
    ended = {trial.number for trial in search_result.ended}
    rows = [_row(trial, objectives if trial.number in ended else ()) for trial in search_result.trials]
    domains = {line.path: line.range for space in search_result.space.values() for line in space}
    log = [path for path, domain in domains.items() if isinstance(domain, Range) and domain.log]
    paths = [*(["study"] if len(search_result.space) > 1 else []), *domains]
    several = " No dot: not a knob of its study." if len(search_result.space) > 1 else ""
    figures = [Drawing("", "history", HISTORY, history, (rows, objectives))]
    if len(objectives) > 1:
        figures.append(Drawing("", "pareto", FRONT, pareto, (rows, objectives)))
    if shares:
        caption = SHARES.format(top=num_best(search_result), n=len(ended))
        figures.append(Drawing("", "importance", caption, importance_bars, (shares,)))
    lines = Drawing("", "coordinates", LINES.format(several), coordinates, (rows, paths, objectives, log))
    return [*figures, lines]


def _row(trial: Trial, metrics: Collection[str]) -> Row:
    settings, results = trial.values, {metric: trial.metrics[metric] for metric in metrics}
    values = {path: value if isinstance(value, int | float | str) else label(value) for path, value in settings.items()}
    return {"number": trial.number, "study": trial.study, **values, **results}


def history(rows: Sequence[Row], objectives: Objectives) -> Figure:
    """Draw a panel per metric: every trial, and the best so far."""
    figure, axes = panels(1, len(objectives))
    for (metric, mode), axis in zip(objectives.items(), axes[0], strict=True):
        number = [row["number"] for row in rows if metric in row]
        value = [row[metric] for row in rows if metric in row]
        failed = [row["number"] for row in rows if metric not in row]
        best = (np.maximum if mode == "max" else np.minimum).accumulate(value)
        axis.step(number, best, where="post", color=BLUE, linewidth=1.2)
        dots = axis.plot(number, value, "o", color=INK, markersize=2.8, alpha=0.75, markeredgewidth=0)
        named_series(dots[0], "result")
        with_values(axis)
        axis.margins(y=0.16 if failed else None)  # crosses are below the lowest result
        axis.plot(failed, np.full(len(failed), 0.04), "x", color=RED, ms=3, transform=axis.get_xaxis_transform())
        axis.set(xlabel="trial", ylabel=words(heading(metric)))
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def importance_bars(shares: Mapping[str, float]) -> Figure:
    """Draw the shares of importance by path, the largest on top."""
    names, ranked = short_names(shares), sorted(shares.items(), key=lambda item: item[1])
    figure, axes = panels(1, 1, height=0.5 + 0.18 * len(ranked))
    axes[0, 0].barh([words(names[path]) for path, _ in ranked], [share for _, share in ranked], color=BLUE, height=0.6)
    axes[0, 0].set(xlabel="share", xlim=(0, None))
    axes[0, 0].tick_params(axis="y", length=0)
    return figure


def coordinates(rows: Sequence[Row], paths: Sequence[str], objectives: Objectives, log: Collection[str] = ()) -> Figure:
    """Draw parallel coordinates, colored by the first metric, better trials in front."""
    (metric, mode), sign = next(iter(objectives.items())), {"max": 1, "min": -1}
    ranked = sorted(rows, key=lambda row: sign[mode] * row[metric] if metric in row else -np.inf)
    drawn = [path for path in (*paths, *objectives) if any(path in row for row in rows)]
    names = short_names(drawn) | {name: heading(name) for name in objectives if name in drawn}
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(-0.1, max(len(names), 2) - 0.9), ylim=(-0.12, 1.12), yticks=[])
    axis.set_xticks(range(len(names)), [words(name).replace(" ", "\n") for name in names.values()])
    axis.tick_params(axis="x", length=0)
    axis.spines[:].set_visible(False)
    heights = np.array([_axis_heights(axis, at, ranked, path, log=path in log) for at, path in enumerate(names)])
    without = sum(metric not in row for row in rows)
    colors = [INK] * without + list(AMOUNTS(np.linspace(0, 1, len(rows) - without)))
    for number, (line, color) in enumerate(zip(heights.T, colors, strict=True)):
        known = ~np.isnan(line)  # a knob that a trial does not have is passed by, without a dot
        style = {"linewidth": 0.4, "alpha": 0.5} if number < without else {"linewidth": 0.9, "marker": "o", "ms": 2}
        drawn_line = axis.plot(np.flatnonzero(known), line[known], color=color, **style)
        named_series(drawn_line[0], _trial_text(ranked[number], names))
    return figure


def _trial_text(row: Row, names: Mapping[str, str]) -> str:
    """Write `trial 12: temperature 0.31, knn top-1 75.2`."""
    settings = (f"{words(name)} {short(row[path])}" for path, name in names.items() if path in row)
    return f"trial {row['number']}: {', '.join(settings)}"


def _axis_heights(axis: Axes, at: int, rows: Sequence[Row], path: str, *, log: bool) -> NDArray[np.float64]:
    """Draw one axis and return the trials' heights on it from 0 to 1; nan for a trial without the setting."""
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
        text = f"{mark:.3g}" if isinstance(mark, float) else label(mark)
        offset = {0: (0, -8), 1: (0, 4)}.get(place, (3, 2))  # ends beyond the lines, what is between beside them
        side = "left" if offset[0] else "center"
        axis.annotate(text, (at, place), offset, textcoords="offset points", fontsize=6.5, ha=side)
    return height


def pareto(rows: Sequence[Row], objectives: Objectives) -> Figure:
    """Draw the first metric over each of the others; with two metrics the front is joined by a line."""
    up, *others = objectives
    finished = [row for row in rows if up in row]
    best = front([[row[metric] for metric in objectives] for row in finished], objectives.values())
    figure, axes = panels(1, len(others))
    for across, axis in zip(others, axes[0], strict=True):
        points = np.reshape([(row[across], row[up]) for row in finished], (-1, 2))
        on = points[np.array(best, bool)]
        on = on[np.argsort(on[:, 0], kind="stable")]
        behind = axis.plot(*points[~np.array(best, bool)].T, "o", color=INK, ms=2.8, alpha=0.6, markeredgewidth=0)
        front_line = axis.plot(*on.T, "o-" if len(others) == 1 else "o", color=BLUE, ms=3.5, linewidth=1)
        for (line,), name in ((behind, "a trial"), (front_line, "on the front")):
            named_series(line, name)
        with_values(axis)
        axis.set(xlabel=words(heading(across)), ylabel=words(heading(up)))
    return figure
