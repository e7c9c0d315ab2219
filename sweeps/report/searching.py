"""Text and tables on a search: what was searched, its best trials, and how these did from fresh seeds."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from selfsup.sweeps.report import cells
from selfsup.sweeps.report.cells import NOTHING, Cell
from selfsup.sweeps.report.columns import Block, Column
from selfsup.sweeps.report.importance import FEWEST, alike
from selfsup.sweeps.report.provenance import command, made_with
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.wording import (
    heading,
    interval,
    listed,
    short,
    some,
    words,
)
from selfsup.sweeps.spec.axes import short_names
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.trials import Searched, Trial

LEADERS = 10  # trials that are shown, where one metric ranks them
CURSE = (
    "What won was chosen for its number in the search, which is therefore expected to be too good: only what fresh "
    "seeds say is a result."
)


def about(searched: Searched) -> dict[str, str]:
    """-> what was searched, and how: {"Space": ..., "Trials": ...}."""
    search = searched.search
    spaces = [
        ("" if len(searched.space) == 1 else f"{study}: ")
        + "; ".join(f"{words(line.path.rpartition('.')[2])} {line}" for line in lines)
        for study, lines in searched.space.items()
    ]
    stops = "" if search.scheduler == "none" else f"; {search.scheduler} stops what falls behind in {search.ranking[0]}"
    return {
        "Space": " | ".join(spaces),
        "Goal": " and ".join(search.metric),
        "How": f"{search.sampler} proposes, from seed {search.seed} ({search.repeats(searched.sessions)}){stops}",
        "Budget": f"{search.budget}: {'spent' if searched.over else 'the search goes on'}",
        "Trials": _trial_counts(searched),
    }


def sentences(ablation: Ablation) -> list[str]:
    """Return the sentences on the result of a search; none for a sweep without one."""
    searched = ablation.sweep.search
    if searched is None:
        return []
    so_far = "" if searched.over else " so far"
    if not searched.best:
        return [f"No trial came to a result{so_far}."]
    lines = [_front_sentence(searched, so_far) if len(searched.search.objectives) > 1 else _winner(searched, so_far)]
    if len(searched.ended) < FEWEST:
        lines.append(f"Which knobs matter is told from {FEWEST} trials with a result on.")
    elif alike(searched):
        lines.append("Which knobs matter is not told: no trial is better than the others.")
    confirmed = list(_fresh_sentences(ablation))
    return [*lines, *confirmed[: len(searched.search.objectives) < 2], CURSE]


def blocks(ablation: Ablation) -> list[Block]:
    """Return the tables of a search: the best trials, and their numbers from fresh seeds once there are some."""
    searched = ablation.sweep.search
    if searched is None or not searched.best:
        return []
    pareto = len(searched.search.objectives) > 1
    shown = searched.best if pareto else searched.ranked[:LEADERS]
    tables = [Block("Pareto front" if pareto else "best trials", _leader_columns(searched, shown))]
    if confirmed := list(_fresh_columns(ablation)):
        tables.append(Block("in the search and from fresh seeds", confirmed))
    return tables


def rows(sweep: Sweep) -> Iterator[dict[str, object]]:
    """Yield rows of the long form, as those of arms: one per trial and metric."""
    searched = sweep.search
    for trial in searched.trials if searched else ():
        run = trial.result
        for metric in dict.fromkeys([*searched.search.objectives, *sorted(run.metrics)] if searched else ()):
            yield {
                "sweep": sweep.name,
                "kind": "trial",
                "study": trial.study,
                "arm": trial.name,
                "default": False,
                "changed": json.dumps(dict(trial.values), sort_keys=True),
                "seed": run.seed,
                "metric": metric,
                "value": run.metrics.get(metric),
                "status": run.status,
                "reason": run.reason,
                "id": run.id,
                "run": run.run,
                "command": command(sweep, run.id),
                **made_with(run),
            }


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _trial_counts(searched: Searched) -> str:
    """Count trials: `30: 12 with a result, 16 stopped, 2 failed`."""
    status: Counter[str] = Counter(trial.result.status for trial in searched.trials)
    names = {"stopped": "stopped", "failed": "failed", "running": "running", "planned": "interrupted"}
    incomplete = status["finished"] - len(searched.ended)
    counts = [f"{len(searched.ended)} with a result"]
    counts += [f"{incomplete} finished without the metric"] if incomplete else []
    counts += [f"{status[name]} {word}" for name, word in names.items() if status[name]]
    return f"{len(searched.trials)}: {', '.join(counts)}"


def _winner(searched: Searched, so_far: str) -> str:
    (metric,), (best,) = searched.search.objectives, searched.best
    number = f"{len(searched.ended)}{so_far}"
    return f"The best of {number} by {heading(metric)} is {best.name} with {_number(best.metrics[metric])}."


def _front_sentence(searched: Searched, so_far: str) -> str:
    metrics = [heading(metric) for metric in searched.search.objectives]
    best, chosen = ([str(trial.number) for trial in trials] for trials in (searched.best, searched.finalists))
    front = f"Trials {some(best, most=LEADERS)} are" if len(best) > 1 else f"Trial {best[0]} is"
    sentence = f"{front} the Pareto front{so_far} of {len(searched.ended)} in {listed(metrics)}."
    choice = f" Of these {listed(chosen)} are trained again: the ends by {metrics[0]} and, evenly, from between."
    return sentence + choice * (len(chosen) < len(best))


def _fresh_sentences(ablation: Ablation) -> Iterator[str]:
    """Yield a sentence for each finalist that has numbers from fresh seeds."""
    for trial, cells_by_metric in _fresh_cells(ablation):
        clauses = [_clause(trial, metric, cell) for metric, cell in cells_by_metric.items() if cell.n or cell.diverged]
        if clauses:
            yield f"{trial.name.capitalize()} from {len(ablation.sweep.seeds)} fresh seeds: {'; '.join(clauses)}."


def _clause(trial: Trial, metric: str, cell: Cell) -> str:
    """Write `knn top-1 71.6 ± 2.3, in the search 75.2 (-3.6)`."""
    lost = [f"{cell.diverged} of {cell.planned} seeds diverged"] if cell.diverged else []
    n = "" if cell.n == cell.planned else f" ({'; '.join([f'n = {cell.n}', *lost])})"
    won = f"{_number(trial.metrics[metric])} ({_change(trial, metric, cell)})"
    return f"{heading(metric)} {cell.text}{n}, in the search {won}"


def _leader_columns(searched: Searched, shown: list[Trial]) -> list[Column]:
    """Return the table of the best trials, below the defaults, which were not searched; unused knobs are left empty."""
    studies = len(searched.space) > 1
    defaults = list(searched.defaults.items())
    columns = [Column("", "trial", [*["default"] * len(defaults), *(str(trial.number) for trial in shown)], key=True)]
    if studies:
        columns.append(Column("", "study", [*searched.defaults, *(trial.study for trial in shown)]))
    rows = [*(values for _, values in defaults), *(trial.values for trial in shown)]
    for path, name in short_names(line.path for lines in searched.space.values() for line in lines).items():
        columns.append(Column("", words(name), [short(row[path]) if path in row else "" for row in rows]))
    for metric in searched.search.objectives:
        values = [_number(trial.metrics[metric]) for trial in shown]
        columns.append(Column("", heading(metric), [*[NOTHING] * len(defaults), *values]))
    return columns


def _fresh_columns(ablation: Ablation) -> Iterator[Column]:
    """Yield the columns of the finalists' numbers, a row per finalist."""
    finalists = [
        (trial, cells_by_metric)
        for trial, cells_by_metric in _fresh_cells(ablation)
        if any(cell.n for cell in cells_by_metric.values())
    ]
    if not finalists:
        return
    yield Column("", "trial", [str(trial.number) for trial, _ in finalists], key=True)
    for metric in finalists[0][1]:
        yield Column("", f"{heading(metric)}, search", [_number(trial.metrics[metric]) for trial, _ in finalists])
        yield Column("", "fresh seeds", [cells_by_metric[metric].text for _, cells_by_metric in finalists])
        yield Column(
            "", "difference", [_change(trial, metric, cells_by_metric[metric]) for trial, cells_by_metric in finalists]
        )
    yield Column("", "n", [str(max(cell.n for cell in cells_by_metric.values())) for _, cells_by_metric in finalists])


def _change(trial: Trial, metric: str, cell: Cell) -> str:
    return (
        NOTHING
        if cell.mean is None
        else interval(cell.mean - trial.metrics[metric], cell.half, sign="+").partition(" ±")[0]
    )


def _fresh_cells(ablation: Ablation) -> Iterator[tuple[Trial, Mapping[str, Cell]]]:
    """Yield each finalist with a cell for every metric of the search, from the runs of fresh seeds.

    A finalist that equals the default has the default's cells.
    """
    searched = ablation.sweep.search
    results = {result.id: result for result in ablation.results}
    for study in ablation.sweep.studies if searched else ():
        assert searched
        for trial in searched.finalists:
            if trial.study == study.name:
                arm = next((arm for arm in study.arms if arm.name == trial.name), study.arms[0])
                yield (
                    trial,
                    {
                        metric: cells.new_cell(cells.arm_outcome(arm, metric, results))
                        for metric in searched.search.objectives
                    },
                )
