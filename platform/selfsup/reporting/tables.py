"""From a sweep and the results of its runs to everything that a report shows, whatever its format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from selfsup.reporting import cells, notes, stats, verdict
from selfsup.reporting.cells import Cell, Found
from selfsup.reporting.integrity import integrity
from selfsup.reporting.registration import Registered
from selfsup.reporting.results import Result
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import label, numbered, words
from selfsup.sweepspec.arms import Arm, Factor, Study, Sweep

__all__ = ["COST", "Ablation", "Cell", "Line", "Table", "ablation"]

COST = ("seconds", "gpu_hours", "images_per_second", "peak_memory_mib", "energy_wh")
WANTED = 0.5  # half of the interval that `needed` counts seeds for, in the metric's unit

Columns = Mapping[str, Mapping[str, Cell]]  # metric -> arm name -> cell


@dataclass(frozen=True)
class Line:
    """One arm. cost: means over finished seeds of what is known of COST. failures: such as "seeds 0 and 1: nan"."""

    arm: Arm
    label: str
    cells: Mapping[str, Cell]
    cost: Mapping[str, float]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """varied: what its lines differ in, of a grid several; nothing for methods side by side, whose study is ""."""

    study: str
    varied: tuple[Factor, ...]
    title: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    verdict: tuple[str, ...]
    note: str

    @property
    def factor(self) -> Factor | None:
        """The one that is varied; None for a grid and for methods."""
        return self.varied[0] if len(self.varied) == 1 else None


@dataclass(frozen=True)
class Ablation:
    """integrity: see integrity.py. needed: metric -> seeds for intervals of ± WANTED, where seeds deviate most.

    place: of the sweep's experiment in MLflow's UI; "" where there is none.
    """

    sweep: Sweep
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    integrity: Mapping[str, Any]
    needed: Mapping[str, int]
    place: str = ""


def ablation(sweep: Sweep, results: Sequence[Result], plans: Sequence[Registered] = (), place: str = "") -> Ablation:
    """results: in any order; those of other sweeps are left out. plans: of this name in MLflow, oldest first."""
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    ids = {key for arm in arms for key in arm.ids.values()}
    found = {result.id: result for result in sorted(results, key=lambda result: result.id) if result.id in ids}
    tables = [table for study in sweep.studies for table in _of_study(study, sweep.metrics, found)]
    if sweep.studies and (not tables or len(sweep.studies) + len(sweep.baselines) > 1):
        tables.append(_of_methods(sweep, found))
    checked = integrity(sweep, found, plans)
    return Ablation(sweep, tuple(tables), tuple(found.values()), checked, _needed(sweep, found), place)


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
    named = [(arm, ", ".join(label(arm.values[factor.path]) for factor in varied)) for arm in _among(study, varied)]
    table = Table(
        study=study.name,
        varied=varied,
        title=" × ".join(words(factor.name) for factor in varied),
        metrics=tuple(columns),
        lines=_marked([_line(arm, name, columns, found) for arm, name in named], spreads, columns),
        verdict=(),
        note=notes.of_study(study, spreads, grid=len(varied) > 1),
    )
    return replace(table, verdict=verdict.of_table(table, spreads))


def _among(study: Study, varied: Sequence[Factor]) -> list[Arm]:
    """The arms that differ from the default in these factors only, in the order of their values."""
    paths, default = {factor.path for factor in varied}, study.arms[0].values
    return sorted(
        (arm for arm in study.arms if {path for path in default if arm.values[path] != default[path]} <= paths),
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
    standing = [
        (low, [line for line, study in zip(methods, sweep.studies, strict=True) if _on(study, low)]) for low in floor
    ]
    return Table(
        study="",
        varied=(),
        title="methods and baselines" if floor else "methods",
        metrics=sweep.metrics,
        lines=(*floor, *methods),
        verdict=verdict.of_methods(methods, standing, spreads),
        note=notes.of_methods(spreads, floor=bool(floor)),
    )


def _floor(sweep: Sweep, found: Found) -> list[Line]:
    lines = []
    for arm in sweep.baselines:
        columns = {metric: {arm.name: cells.of_baseline(arm, metric, found)} for metric in sweep.metrics}
        lines.append(_line(arm, arm.name, columns, found))
    return lines


def _on(study: Study, low: Line) -> bool:
    return any(low.arm.ids == arm.ids for arm in study.floor)


def _line(arm: Arm, name: str, columns: Columns, found: Found) -> Line:
    runs = [found[key] for _, key in sorted(arm.ids.items()) if key in found]
    finished = [run.metrics for run in runs if run.status == "finished"]
    cost = {name: [held[f"pretrain/{name}"] for held in finished if f"pretrain/{name}" in held] for name in COST}
    return Line(
        arm=arm,
        label=name,
        cells={metric: column[arm.name] for metric, column in columns.items()},
        cost={name: fmean(known) for name, known in cost.items() if known},
        failures=tuple(_failures(runs)),
    )


def _failures(runs: Sequence[Result]) -> Iterator[str]:
    """A text a reason."""
    ended: dict[str, list[int]] = {}
    for run in runs:
        if run.status in ("failed", "stopped"):
            ended.setdefault(run.reason or run.status, []).append(run.seed)
    yield from (f"{numbered(seeds)}: {reason}" for reason, seeds in ended.items())


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
