"""The content of a report, computed from a sweep and the results of its runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from selfsup.sweeps.registration import RegisteredPlan, looks
from selfsup.sweeps.report import cells, notes, stats, verdict
from selfsup.sweeps.report.cells import Cell, ResultsById
from selfsup.sweeps.report.decision import Decision, Outcome
from selfsup.sweeps.report.integrity import integrity, lacking
from selfsup.sweeps.report.stats import SeedsNeeded
from selfsup.sweeps.report.table import COST, Ablation, Line, Table
from selfsup.sweeps.report.wording import label, numbered, words
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep

WANTED = 0.5  # the difference that `needed` counts seeds for, in the metric's unit

Decisions = Mapping[str, Decision]  # by metric
Columns = Mapping[str, Mapping[str, Cell]]  # metric -> arm name -> cell


def ablation(
    sweep: Sweep,
    results: Sequence[Result],
    plans: Sequence[RegisteredPlan] = (),
    place: str = "",
    *,
    served: bool = False,
) -> Ablation:
    """Compute tables, verdicts and integrity of a sweep.

    results: in any order; those of other sweeps are left out. plans: those of this name in MLflow, oldest first.
    place, served: see Ablation.
    """
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    ids = {key for arm in arms for key in arm.ids.values()}
    known = {result.id: result for result in sorted(results, key=lambda result: result.id) if result.id in ids}
    num_looks = looks(sweep, plans)
    decisions = {
        study.name: {
            metric: cells.decide(study.arms, metric, known, study.arms[0].name, num_looks, sweep.scale(metric))
            for metric in sweep.metrics
        }
        for study in sweep.studies
    }
    tables = [table for study in sweep.studies for table in _study_tables(study, sweep, decisions[study.name], known)]
    if sweep.studies and (not tables or len(sweep.studies) + len(sweep.baselines) > 1):
        tables.append(_methods_table(sweep, known, num_looks))
    checked = integrity(sweep, known, plans)
    needed = _needed(sweep, decisions)
    return Ablation(sweep, tuple(tables), tuple(known.values()), checked, needed, place, num_looks, served)


def _study_tables(study: Study, sweep: Sweep, decisions: Decisions, results: ResultsById) -> Iterator[Table]:
    """Yield a table per factor, and one of the grid.

    An arm is compared with the default once, whatever table shows it.
    """
    columns = {metric: cells.study_cells(study, metric, decided) for metric, decided in decisions.items()}
    for varied in (*((factor,) for factor in study.factors), study.grid):
        if varied:
            yield _table(study, varied, sweep, columns, decisions, results)


def _table(
    study: Study, varied: tuple[Factor, ...], sweep: Sweep, columns: Columns, decisions: Decisions, results: ResultsById
) -> Table:
    labelled_arms = [
        (arm, ", ".join(label(arm.values[factor.path]) for factor in varied)) for arm in _arms_varying(study, varied)
    ]
    names = [arm.name for arm, _ in labelled_arms]
    cells_by_metric = {
        metric: _marked_cells(names, columns[metric], decided, _floor(study, metric, results))
        for metric, decided in decisions.items()
    }
    table = Table(
        study=study.name,
        varied=varied,
        title=" × ".join(words(factor.name) for factor in varied),
        metrics=tuple(columns),
        lines=tuple(_line(arm, name, arm.name, cells_by_metric, results) for arm, name in labelled_arms),
        verdict=(),
        note=notes.study_note(study, decisions, grid=len(varied) > 1),
    )
    return replace(table, verdict=verdict.table_sentences(table, decisions, sweep.primary))


def _marked_cells(
    names: Sequence[str], column: Mapping[str, Cell], decided: Decision, baselines: Mapping[str, Cell]
) -> Mapping[str, Cell]:
    marked = cells.mark_best({name: column[name] for name in names}, decided)
    return {name: cells.mark_behind(cell, baselines) for name, cell in marked.items()}


def _floor(study: Study, metric: str, results: ResultsById) -> dict[str, Cell]:
    """-> name of each baseline of a study: its cell."""
    return {arm.name: cells.baseline_cell(arm, metric, results) for arm in study.floor}


def _arms_varying(study: Study, varied: Sequence[Factor]) -> list[Arm]:
    """Return the arms that differ from the default in these factors only, in the order of their values."""
    paths, default = {factor.path for factor in varied}, study.arms[0].values
    return sorted(
        (arm for arm in study.arms if {path for path in default if arm.values[path] != default[path]} <= paths),
        key=lambda arm: [factor.values.index(arm.values[factor.path]) for factor in varied],
    )


def _methods_table(sweep: Sweep, results: ResultsById, num_looks: int) -> Table:
    """Build the table of methods: the baselines, then each study's default beside its untrained encoder."""
    one_each = len({study.method for study in sweep.studies}) == len(sweep.studies)
    first = {tuple(study.arms[0].ids.values()): study.name for study in reversed(sweep.studies)}
    names = {study.name: first[tuple(study.arms[0].ids.values())] for study in sweep.studies}  # a default is one arm
    arms = {study.name: study.arms[0] for study in sweep.studies if study.name in first.values()}
    decisions, columns = _decided_methods(sweep, arms, results, num_looks)
    lines = [
        _line(study.arms[0], study.method if one_each else study.name, names[study.name], columns, results)
        for study in sweep.studies
    ]
    floor = _baseline_lines(sweep, results)
    baselines = [
        (low, [line for line, study in zip(lines, sweep.studies, strict=True) if _began_as(study, low.arm)])
        for low in floor
    ]
    return Table(
        study="",
        varied=(),
        title="methods and baselines" if floor else "methods",
        metrics=sweep.metrics,
        lines=(*floor, *lines),
        verdict=verdict.methods_sentences(lines, baselines, decisions, sweep.primary),
        note=notes.methods_note(decisions, floor=bool(floor)),
    )


def _decided_methods(
    sweep: Sweep, arms: Mapping[str, Arm], results: ResultsById, num_looks: int
) -> tuple[Decisions, Columns]:
    """Decide between methods, each by its default arm, under every metric."""
    decisions, columns = {}, {}
    for metric in sweep.metrics:
        outcomes = {name: cells.arm_outcome(arm, metric, results) for name, arm in arms.items()}
        decisions[metric] = Decision(outcomes, looks=num_looks, scale=sweep.scale(metric))
        compared = _cells_over_baselines(sweep, outcomes, metric, results, num_looks)
        marked = cells.mark_best(compared, decisions[metric])
        floors = {study.name: _floor(study, metric, results) for study in sweep.studies}
        columns[metric] = {name: cells.mark_behind(cell, floors[name]) for name, cell in marked.items()}
    return decisions, columns


def _cells_over_baselines(
    sweep: Sweep, methods: Mapping[str, Outcome], metric: str, results: ResultsById, num_looks: int
) -> dict[str, Cell]:
    """-> method: its cell. A baseline with weights is the control of the methods that began as it, seed by seed."""
    column = {name: cells.new_cell(outcome) for name, outcome in methods.items()}
    for baseline in sweep.baselines:
        compared_names = {study.name for study in sweep.studies if _began_as(study, baseline)} & methods.keys()
        if compared_names and not cells.has_no_weights(baseline, results):
            family = {"": cells.arm_outcome(baseline, metric, results)} | {
                name: methods[name] for name in methods if name in compared_names
            }
            bare_cells = {name: column.get(name) or cells.new_cell(outcome) for name, outcome in family.items()}
            compared = cells.compared_with_control(bare_cells, Decision(family, "", num_looks, sweep.scale(metric)))
            column |= {name: compared[name] for name in compared_names}
    return column


def _baseline_lines(sweep: Sweep, results: ResultsById) -> list[Line]:
    lines = []
    for arm in sweep.baselines:
        columns = {
            metric: {arm.name: replace(cells.baseline_cell(arm, metric, results), scale=sweep.scale(metric))}
            for metric in sweep.metrics
        }
        lines.append(_line(arm, arm.name, arm.name, columns, results))
    return lines


def _began_as(study: Study, baseline: Arm) -> bool:
    """Return whether this baseline is the untrained encoder of a study: of the same backbone and weights."""
    return any(baseline.ids == arm.ids for arm in study.floor)


def _line(arm: Arm, label: str, name: str, columns: Columns, results: ResultsById) -> Line:
    """Build the row of an arm. name: the key of its cells."""
    runs = [results[key] for _, key in sorted(arm.ids.items()) if key in results]
    finished = [run.metrics for run in runs if run.status == "done"]
    cost = {
        kind: [metrics[f"pretrain/{kind}"] for metrics in finished if f"pretrain/{kind}" in metrics] for kind in COST
    }
    return Line(
        arm=arm,
        label=label,
        cells={metric: column[name] for metric, column in columns.items()},
        cost={kind: fmean(known) for kind, known in cost.items() if known},
        failures=tuple(_failures(runs, list(columns))),
    )


def _failures(runs: Sequence[Result], metrics: Sequence[str]) -> Iterator[str]:
    """Yield a text per reason."""
    seeds_by_reason: dict[str, list[int]] = {}
    for run in runs:
        if run.status in ("failed", "stopped"):
            seeds_by_reason.setdefault(run.reason or run.status, []).append(run.seed)
        elif run.status == "done" and (missing := lacking(run, metrics)):
            seeds_by_reason.setdefault(missing, []).append(run.seed)
    yield from (f"{numbered(seeds)}: {reason}" for reason, seeds in seeds_by_reason.items())


def _needed(sweep: Sweep, decisions: Mapping[str, Decisions]) -> dict[str, SeedsNeeded]:
    """-> metric: seeds needed, the most over studies; none for a metric whose spread is not known."""
    needed = {}
    for metric in sweep.metrics:
        spreads = [(decisions[study.name][metric].spread, len(study.arms)) for study in sweep.studies]
        if known := [stats.seeds_needed(spread, WANTED, size) for spread, size in spreads if spread]:
            needed[metric] = max(known)
    return needed
