"""From a sweep and the results of its runs to everything that a report shows, whatever its format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from selfsup.reporting import cells, stats, verdict
from selfsup.reporting.cells import Cell, Found
from selfsup.reporting.integrity import integrity
from selfsup.reporting.results import Result
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import shown, words
from selfsup.sweepspec.arms import Arm, Factor, Study, Sweep

__all__ = ["COST", "Ablation", "Cell", "Line", "Table", "ablation"]

COST = ("seconds", "gpu_hours", "images_per_second", "peak_memory_mib")
WANTED = 0.5  # half of the interval that `needed` counts seeds for, in the metric's unit

Columns = Mapping[str, Mapping[str, Cell]]  # metric -> arm name -> cell


@dataclass(frozen=True)
class Line:
    """One arm. cost: means over finished seeds of what is known of COST. failures: such as "seed 1: out of memory"."""

    arm: Arm
    label: str
    cells: Mapping[str, Cell]
    cost: Mapping[str, float]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """factor: None for a grid, and for methods side by side, whose study is ""."""

    study: str
    factor: Factor | None
    title: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    verdict: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Ablation:
    """integrity: see integrity.py. needed: metric -> seeds for intervals of ± WANTED, where seeds deviate most."""

    sweep: Sweep
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    integrity: Mapping[str, Any]
    needed: Mapping[str, int]


def ablation(sweep: Sweep, results: Sequence[Result]) -> Ablation:
    """results: in any order; those of other sweeps are left out."""
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    ids = {key for arm in arms for key in arm.ids.values()}
    found = {result.id: result for result in sorted(results, key=lambda result: result.id) if result.id in ids}
    tables = [table for study in sweep.studies for table in _of_study(study, sweep.metrics, found)]
    if not tables or len(sweep.studies) + len(sweep.baselines) > 1:
        tables.append(_of_methods(sweep, found))
    return Ablation(sweep, tuple(tables), tuple(found.values()), integrity(sweep, found), _needed(sweep, found))


def _of_study(study: Study, metrics: Sequence[str], found: Found) -> Iterator[Table]:
    """A table a factor and one of the grid. Each arm is compared with the default once, whatever table shows it."""
    spreads = {metric: cells.pooled(study.arms, metric, found) for metric in metrics}
    columns = {metric: cells.of_study(study, metric, spread, found) for metric, spread in spreads.items()}
    for varied in (*((factor,) for factor in study.factors), study.grid):
        if varied:
            yield _table(study, varied, columns, spreads, found)


def _table(
    study: Study, varied: tuple[Factor, ...], columns: Columns, spreads: Mapping[str, Spread | None], found: Found
) -> Table:
    grid = varied == study.grid
    title = " × ".join(words(factor.name) for factor in varied)
    arms = [(arm, ", ".join(shown(arm.values[factor.path]) for factor in varied)) for arm in _among(study, varied)]
    lines = _marked([_line(arm, label, columns, found) for arm, label in arms], spreads, columns)
    return Table(
        study=study.name,
        factor=None if grid else varied[0],
        title=title,
        metrics=tuple(columns),
        lines=lines,
        verdict=verdict.of_factor(title, lines, spreads),
        note=verdict.note(study, spreads, grid=grid),
    )


def _among(study: Study, varied: Sequence[Factor]) -> list[Arm]:
    """The arms that differ from the default in these factors only, in the order of their values."""
    paths = {factor.path for factor in varied}
    return sorted(
        (arm for arm in study.arms if arm.changed.keys() <= paths),
        key=lambda arm: [factor.values.index(arm.values[factor.path]) for factor in varied],
    )


def _of_methods(sweep: Sweep, found: Found) -> Table:
    """The baselines, then the default of every study."""
    trained = {tuple(arm.ids.values()): arm for study in sweep.studies for arm in study.arms}.values()
    spreads = {metric: cells.pooled(trained, metric, found) for metric in sweep.metrics}
    one_each = len({study.method for study in sweep.studies}) == len(sweep.studies)
    lines = []
    for study in sweep.studies:
        bare = replace(study, arms=study.arms[:1])
        columns = {metric: cells.of_study(bare, metric, spread, found) for metric, spread in spreads.items()}
        lines.append(_line(study.arms[0], study.method if one_each else study.name, columns, found))
    methods, floor = _marked(lines, spreads, {}), _floor(sweep, found)
    return Table(
        study="",
        factor=None,
        title="methods and baselines" if floor else "methods",
        metrics=sweep.metrics,
        lines=(*floor, *methods),
        verdict=verdict.of_methods(methods, floor, spreads),
        note=verdict.note(None, spreads),
    )


def _floor(sweep: Sweep, found: Found) -> list[Line]:
    lines = []
    for arm in sweep.baselines:
        columns = {metric: {arm.name: cells.of_baseline(arm, metric, found)} for metric in sweep.metrics}
        lines.append(_line(arm, arm.name, columns, found))
    return lines


def _line(arm: Arm, label: str, columns: Columns, found: Found) -> Line:
    runs = [found[key] for _, key in sorted(arm.ids.items()) if key in found]
    finished = [run.metrics for run in runs if run.status == "finished"]
    cost = {name: [held[f"pretrain/{name}"] for held in finished if f"pretrain/{name}" in held] for name in COST}
    ended = [run for run in runs if run.status in ("failed", "stopped")]
    return Line(
        arm=arm,
        label=label,
        cells={metric: column[arm.name] for metric, column in columns.items()},
        cost={name: fmean(known) for name, known in cost.items() if known},
        failures=tuple(f"seed {run.seed}: {run.reason or run.status}" for run in ended),
    )


def _marked(lines: Sequence[Line], spreads: Mapping[str, Spread | None], columns: Columns) -> tuple[Line, ...]:
    """columns: of the whole study, since the comparisons with the best are adjusted for all of it."""
    here, marked = {line.arm.name for line in lines}, {}
    for metric, spread in spreads.items():
        beside = [cell for name, cell in columns.get(metric, {}).items() if name not in here]
        marked[metric] = cells.marked([line.cells[metric] for line in lines], spread, beside)
    return tuple(
        replace(line, cells={metric: column[row] for metric, column in marked.items()})
        for row, line in enumerate(lines)
    )


def _needed(sweep: Sweep, found: Found) -> dict[str, int]:
    """A metric whose spread is not known has none."""
    needed = {}
    for metric in sweep.metrics:
        spreads = [(cells.pooled(study.arms, metric, found), len(study.arms)) for study in sweep.studies]
        if known := [stats.seeds_needed(each.deviation, WANTED, size) for each, size in spreads if each]:
            needed[metric] = max(known)
    return needed
