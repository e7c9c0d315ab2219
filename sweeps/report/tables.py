"""From a sweep and the results of its runs to everything that a report shows, whatever its format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from selfsup.sweeps.registration import Registered, looks
from selfsup.sweeps.report import cells, notes, stats, verdict
from selfsup.sweeps.report.cells import Cell, Found
from selfsup.sweeps.report.decision import Decision, Outcome
from selfsup.sweeps.report.integrity import integrity, lacking
from selfsup.sweeps.report.stats import Needed
from selfsup.sweeps.report.table import COST, Ablation, Line, Table
from selfsup.sweeps.report.wording import label, numbered, words
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep

WANTED = 0.5  # the difference that `needed` counts seeds for, in the metric's unit

Decisions = Mapping[str, Decision]  # by metric
Columns = Mapping[str, Mapping[str, Cell]]  # metric -> arm name -> cell


def ablation(sweep: Sweep, results: Sequence[Result], plans: Sequence[Registered] = (), place: str = "") -> Ablation:
    """results: in any order; those of other sweeps are left out. plans: of this name in MLflow, oldest first."""
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    ids = {key for arm in arms for key in arm.ids.values()}
    found = {result.id: result for result in sorted(results, key=lambda result: result.id) if result.id in ids}
    before = looks(sweep, plans)
    decisions = {
        study.name: {
            metric: cells.decision(study.arms, metric, found, study.arms[0].name, before) for metric in sweep.metrics
        }
        for study in sweep.studies
    }
    tables = [table for study in sweep.studies for table in _of_study(study, sweep, decisions[study.name], found)]
    if sweep.studies and (not tables or len(sweep.studies) + len(sweep.baselines) > 1):
        tables.append(_of_methods(sweep, found, before))
    checked = integrity(sweep, found, plans)
    return Ablation(sweep, tuple(tables), tuple(found.values()), checked, _needed(sweep, decisions), place, before)


def _of_study(study: Study, sweep: Sweep, decisions: Decisions, found: Found) -> Iterator[Table]:
    """A table a factor and one of the grid. Each arm is compared with the default once, whatever table shows it."""
    columns = {metric: cells.of_study(study, metric, decided) for metric, decided in decisions.items()}
    for varied in (*((factor,) for factor in study.factors), study.grid):
        if varied:
            yield _table(study, varied, sweep, columns, decisions, found)


def _table(
    study: Study, varied: tuple[Factor, ...], sweep: Sweep, columns: Columns, decisions: Decisions, found: Found
) -> Table:
    named = [(arm, ", ".join(label(arm.values[factor.path]) for factor in varied)) for arm in _among(study, varied)]
    names = [arm.name for arm, _ in named]
    shown = {metric: _marked(names, columns[metric], decided) for metric, decided in decisions.items()}
    table = Table(
        study=study.name,
        varied=varied,
        title=" × ".join(words(factor.name) for factor in varied),
        metrics=tuple(columns),
        lines=tuple(_line(arm, name, arm.name, shown, found) for arm, name in named),
        verdict=(),
        note=notes.of_study(study, decisions, grid=len(varied) > 1),
    )
    return replace(table, verdict=verdict.of_table(table, decisions, sweep.primary))


def _marked(names: Sequence[str], column: Mapping[str, Cell], decided: Decision) -> Mapping[str, Cell]:
    return cells.marked({name: column[name] for name in names}, decided)


def _among(study: Study, varied: Sequence[Factor]) -> list[Arm]:
    """The arms that differ from the default in these factors only, in the order of their values."""
    paths, default = {factor.path for factor in varied}, study.arms[0].values
    return sorted(
        (arm for arm in study.arms if {path for path in default if arm.values[path] != default[path]} <= paths),
        key=lambda arm: [factor.values.index(arm.values[factor.path]) for factor in varied],
    )


def _of_methods(sweep: Sweep, found: Found, before: int) -> Table:
    """The baselines, then the default of every study, each beside the untrained encoder that it began as."""
    one_each = len({study.method for study in sweep.studies}) == len(sweep.studies)
    first = {tuple(study.arms[0].ids.values()): study.name for study in reversed(sweep.studies)}
    names = {study.name: first[tuple(study.arms[0].ids.values())] for study in sweep.studies}  # a default is one arm
    decisions, columns = {}, {}
    for metric in sweep.metrics:
        methods = {
            study.name: cells.outcome(study.arms[0], metric, found)
            for study in sweep.studies
            if study.name in first.values()
        }
        decisions[metric] = Decision(methods, looks=before)
        columns[metric] = cells.marked(_beside_floor(sweep, methods, metric, found, before), decisions[metric])
    lines = [
        _line(study.arms[0], study.method if one_each else study.name, names[study.name], columns, found)
        for study in sweep.studies
    ]
    floor = _floor(sweep, found)
    standing = [
        (low, [line for line, study in zip(lines, sweep.studies, strict=True) if _on(study, low.arm)]) for low in floor
    ]
    return Table(
        study="",
        varied=(),
        title="methods and baselines" if floor else "methods",
        metrics=sweep.metrics,
        lines=(*floor, *lines),
        verdict=verdict.of_methods(lines, standing, decisions, sweep.primary),
        note=notes.of_methods(decisions, floor=bool(floor)),
    )


def _beside_floor(
    sweep: Sweep, methods: Mapping[str, Outcome], metric: str, found: Found, before: int
) -> dict[str, Cell]:
    """Method -> its cell. A baseline with weights is the control of the methods that began as it, seed by seed."""
    column = {name: cells.cell(held) for name, held in methods.items()}
    for low in sweep.baselines:
        own = {study.name for study in sweep.studies if _on(study, low)} & methods.keys()
        if own and not cells.fixed(low, found):
            family = {"": cells.outcome(low, metric, found)} | {name: methods[name] for name in methods if name in own}
            bare = {name: column.get(name) or cells.cell(held) for name, held in family.items()}
            compared = cells.against(bare, Decision(family, "", before))
            column |= {name: compared[name] for name in own}
    return column


def _floor(sweep: Sweep, found: Found) -> list[Line]:
    lines = []
    for arm in sweep.baselines:
        columns = {metric: {arm.name: cells.of_baseline(arm, metric, found)} for metric in sweep.metrics}
        lines.append(_line(arm, arm.name, arm.name, columns, found))
    return lines


def _on(study: Study, low: Arm) -> bool:
    return any(low.ids == arm.ids for arm in study.floor)


def _line(arm: Arm, label: str, name: str, columns: Columns, found: Found) -> Line:
    """name: of its cells."""
    runs = [found[key] for _, key in sorted(arm.ids.items()) if key in found]
    finished = [run.metrics for run in runs if run.status == "finished"]
    cost = {kind: [held[f"pretrain/{kind}"] for held in finished if f"pretrain/{kind}" in held] for kind in COST}
    return Line(
        arm=arm,
        label=label,
        cells={metric: column[name] for metric, column in columns.items()},
        cost={kind: fmean(known) for kind, known in cost.items() if known},
        failures=tuple(_failures(runs, list(columns))),
    )


def _failures(runs: Sequence[Result], metrics: Sequence[str]) -> Iterator[str]:
    """A text a reason."""
    ended: dict[str, list[int]] = {}
    for run in runs:
        if run.status in ("failed", "stopped"):
            ended.setdefault(run.reason or run.status, []).append(run.seed)
        elif run.status == "finished" and (without := lacking(run, metrics)):
            ended.setdefault(without, []).append(run.seed)
    yield from (f"{numbered(seeds)}: {reason}" for reason, seeds in ended.items())


def _needed(sweep: Sweep, decisions: Mapping[str, Decisions]) -> dict[str, Needed]:
    """A metric whose spread is not known has none."""
    needed = {}
    for metric in sweep.metrics:
        own = [(decisions[study.name][metric].spread, len(study.arms)) for study in sweep.studies]
        if known := [stats.seeds_needed(spread, WANTED, size) for spread, size in own if spread]:
            needed[metric] = max(known)
    return needed
