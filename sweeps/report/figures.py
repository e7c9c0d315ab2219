"""The figures of an ablation as a paper would print them: transparent, in a gray that suits light and dark pages.

A figure is saved as the same bytes each time.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from selfsup.failures import COLLAPSE
from selfsup.recall import once
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.hover import annotate
from selfsup.sweeps.report.learning import LOSS, Panel, arm_curves, evaluations, health, losses, panels_of
from selfsup.sweeps.report.plots import INK, curves, effects, heat_map, numbers
from selfsup.sweeps.report.table import Ablation, Table
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Study

CURVES = "Mean and 95 % interval over the values of a factor. Dots, joined by thin lines: a seed; dashed: the default"
GRID = (
    "Mean and 95 % interval of every combination. Framed: the default; bold: the best mean; †: not shown to "
    "be worse than the best"
)
LOSSES = "Training loss. Thin: a seed; thick: the mean of an arm's seeds."
EVALUATIONS = "Evaluations during training; the last is the result. Thin: a seed; thick: the mean of an arm's seeds."
HEALTH = (
    "Embeddings. Thin: a seed; thick: the mean. Red cross: a seed ends below the dashed line, where collapse is "
    "suspected"
)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "selfsup",
    "savefig.transparent": True,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same layout everywhere
    "font.size": 7,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK),
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of a study, which a command draws once for the same data.

    kind: "curves", "grid", "effects", "loss", "evaluations", "health". caption: content and meaning of marks. of: all
    that `draw` makes it of, plain data whose `repr` leaves out nothing.
    """

    study: str
    kind: str
    caption: str
    draw: Callable[..., Figure]
    of: tuple[Any, ...]

    @cached_property
    def figure(self) -> Figure:
        with mpl.rc_context(STYLE):
            return self.draw(*self.of)

    @cached_property
    def svg(self) -> bytes:
        return self._once("svg", lambda: annotate(_svg(self.figure), self.figure).encode())

    @cached_property
    def png(self) -> bytes:
        return self._once("png", lambda: _saved(self.figure, "png", {"Software": None}))

    def _once(self, kind: str, save: Callable[[], bytes]) -> bytes:
        question = [kind, self.draw.__name__, repr(self.of)]
        return base64.b64decode(once(question, lambda: base64.b64encode(save()).decode()))


def drawings(ablation: Ablation) -> list[Drawing]:
    """Return every figure that has numbers, in the order of a report."""
    runs = {result.id: result for result in ablation.results}
    return [
        drawing
        for study in ablation.sweep.studies
        for drawing in _drawings(
            study, [table for table in ablation.tables if table.study == study.name], ablation.sweep.metrics, runs
        )
    ]


def _svg(figure: Figure) -> str:
    return _saved(figure, "svg", {"Date": None, "Creator": None}).decode()


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format=kind, dpi=200, metadata=metadata)
    return file.getvalue()


def _drawings(
    study: Study, tables: Sequence[Table], metrics: Sequence[str], runs: Mapping[str, Result]
) -> Iterator[Drawing]:
    if numeric := [table for table in tables if table.factor and numbers(table.factor)[1]]:
        yield Drawing(study.name, "curves", f"{CURVES}{_crosses(numeric)}.", curves, (numeric,))
    for table in tables:
        if crossed := crossing(table):
            yield Drawing(study.name, "grid", f"{GRID}{_crosses([table])}.", heat_map, (table.metrics, crossed))
    if len(study.arms) > 1:
        yield Drawing(study.name, "effects", _effects_caption(tables), effects, (tables,))
    groups = panels_of(study, tables)
    curve_names = {name for arm in study.arms for id_ in arm.ids.values() if id_ in runs for name in runs[id_].curves}
    if LOSS in curve_names:
        yield Drawing(study.name, "loss", LOSSES, losses, (groups, _curves(groups, [LOSS], runs)))
    if shown := [metric for metric in metrics if metric in curve_names]:
        of = groups, shown, _curves(groups, shown, runs)
        yield Drawing(study.name, "evaluations", EVALUATIONS, evaluations, of)
    if (spread := [name for name, _ in COLLAPSE.values()]) and curve_names.intersection(spread):
        caption = f"{HEALTH} ({_collapsed_arms(study, runs)})."
        yield Drawing(study.name, "health", caption, health, (groups, _curves(groups, spread, runs)))


def _curves(groups: Sequence[Panel], names: Sequence[str], runs: Mapping[str, Result]) -> dict[str, Result]:
    """Return the runs of some panels, with nothing but these curves."""
    ids = dict.fromkeys(id_ for group in groups for arm in group.arms for id_ in arm.ids.values() if id_ in runs)
    bare: dict[str, Any] = {"run": None, "reason": "", "metrics": {}, "params": {}, "tags": {}, "seen": {}}
    curves = {id_: {name: runs[id_].curves[name] for name in names if name in runs[id_].curves} for id_ in ids}
    return {id_: replace(runs[id_], status="done", curves=curves[id_], **bare) for id_ in ids}


def _crosses(tables: Sequence[Table]) -> str:
    return "; ×: no result" * any(cell.mean is None for cell in _compared(tables, default=True))


def _effects_caption(tables: Sequence[Table]) -> str:
    """Return the meaning of the marks that occur in a forest plot."""
    cells = _compared(tables)
    signs = {cell.scale.sign * (cell.difference or 0) > 0 for cell in cells if cell.differs}
    parts = {
        "blue: better": True in signs,
        "red: worse": False in signs,
        "hollow: cannot be told from zero": any(cell.difference is not None and not cell.differs for cell in cells),
        "×: no result": any(cell.difference is None for cell in cells),
    }
    key = "; ".join(text for text, occurs in parts.items() if occurs)
    intervals = " with simultaneous 95 % intervals" * any(cell.difference_half is not None for cell in cells)
    return f"Difference to the default{intervals}. {key[:1].upper()}{key[1:]}."


def _compared(tables: Sequence[Table], *, default: bool = False) -> list[Cell]:
    """Return the cells of tables that a figure draws. default: those of default arms, too."""
    lines = [line for table in tables for line in table.lines if default or not line.arm.default]
    return [cell for line in lines for cell in line.cells.values()]


def _collapsed_arms(study: Study, runs: Mapping[str, Result]) -> str:
    limits = COLLAPSE.values()
    low = [
        arm
        for arm in study.arms
        if any(v[-1] < limit for name, limit in limits for _, _, v in arm_curves(arm, name, runs))
    ]
    return "; ".join(arm.name for arm in low) or "none here"
