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
from selfsup.sweeps.spec.trials import SearchResult, Trial

LEADERS = 10  # trials that are shown, where one metric ranks them
CURSE = (
    "What won was chosen for its number in the search, which is therefore expected to be too good: only what fresh "
    "seeds say is a result."
)


def about(search_result: SearchResult) -> dict[str, str]:
    """-> what was searched, and how: {"Space": ..., "Trials": ...}."""
    search = search_result.search
    spaces = [
        ("" if len(search_result.space) == 1 else f"{study}: ")
        + "; ".join(f"{words(line.path.rpartition('.')[2])} {line}" for line in lines)
        for study, lines in search_result.space.items()
    ]
    stops = "" if search.scheduler == "none" else f"; {search.scheduler} stops what falls behind in {search.ranking[0]}"
    return {
        "Space": " | ".join(spaces),
        "Goal": " and ".join(search.metric),
        "How": f"{search.sampler} proposes, from seed {search.seed} ({search.repeats(search_result.sessions)}){stops}",
        "Budget": f"{search.budget}: {'spent' if search_result.over else 'the search goes on'}",
        "Trials": _trial_counts(search_result),
    }


def sentences(ablation: Ablation) -> list[str]:
    """Return the sentences on the result of a search; none for a sweep without one."""
    search_result = ablation.sweep.search
    if search_result is None:
        return []
    so_far = "" if search_result.over else " so far"
    if not search_result.best:
        return [f"No trial came to a result{so_far}."]
    lines = [
        _front_sentence(search_result, so_far)
        if len(search_result.search.objectives) > 1
        else _winner(search_result, so_far)
    ]
    if len(search_result.ended) < FEWEST:
        lines.append(f"Which knobs matter is told from {FEWEST} trials with a result on.")
    elif alike(search_result):
        lines.append("Which knobs matter is not told: no trial is better than the others.")
    confirmed = list(_fresh_sentences(ablation))
    return [*lines, *confirmed[: len(search_result.search.objectives) < 2], CURSE]


def blocks(ablation: Ablation) -> list[Block]:
    """Return the tables of a search: the best trials, and their numbers from fresh seeds once there are some."""
    search_result = ablation.sweep.search
    if search_result is None or not search_result.best:
        return []
    pareto = len(search_result.search.objectives) > 1
    shown = search_result.best if pareto else search_result.ranked[:LEADERS]
    tables = [Block("Pareto front" if pareto else "best trials", _leader_columns(search_result, shown))]
    if confirmed := list(_fresh_columns(ablation)):
        tables.append(Block("in the search and from fresh seeds", confirmed))
    return tables


def rows(sweep: Sweep) -> Iterator[dict[str, object]]:
    """Yield rows of the long form, as those of arms: one per trial and metric."""
    search_result = sweep.search
    for trial in search_result.trials if search_result else ():
        run = trial.result
        for metric in dict.fromkeys([*search_result.search.objectives, *sorted(run.metrics)] if search_result else ()):
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


def _trial_counts(search_result: SearchResult) -> str:
    """Count trials: `30: 12 with a result, 16 stopped, 2 failed`."""
    status: Counter[str] = Counter(trial.result.status for trial in search_result.trials)
    names = {"stopped": "stopped", "failed": "failed", "running": "running", "pending": "interrupted"}
    incomplete = status["done"] - len(search_result.ended)
    counts = [f"{len(search_result.ended)} with a result"]
    counts += [f"{incomplete} done without the metric"] if incomplete else []
    counts += [f"{status[name]} {word}" for name, word in names.items() if status[name]]
    return f"{len(search_result.trials)}: {', '.join(counts)}"


def _winner(search_result: SearchResult, so_far: str) -> str:
    (metric,), (best,) = search_result.search.objectives, search_result.best
    number = f"{len(search_result.ended)}{so_far}"
    return f"The best of {number} by {heading(metric)} is {best.name} with {_number(best.metrics[metric])}."


def _front_sentence(search_result: SearchResult, so_far: str) -> str:
    metrics = [heading(metric) for metric in search_result.search.objectives]
    best, chosen = ([str(trial.number) for trial in trials] for trials in (search_result.best, search_result.finalists))
    front = f"Trials {some(best, most=LEADERS)} are" if len(best) > 1 else f"Trial {best[0]} is"
    sentence = f"{front} the Pareto front{so_far} of {len(search_result.ended)} in {listed(metrics)}."
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


def _leader_columns(search_result: SearchResult, shown: list[Trial]) -> list[Column]:
    """Return the table of the best trials, below the defaults, which were not searched; unused knobs are left empty."""
    studies = len(search_result.space) > 1
    defaults = list(search_result.defaults.items())
    columns = [Column("", "trial", [*["default"] * len(defaults), *(str(trial.number) for trial in shown)], key=True)]
    if studies:
        columns.append(Column("", "study", [*search_result.defaults, *(trial.study for trial in shown)]))
    rows = [*(values for _, values in defaults), *(trial.values for trial in shown)]
    for path, name in short_names(line.path for lines in search_result.space.values() for line in lines).items():
        columns.append(Column("", words(name), [short(row[path]) if path in row else "" for row in rows]))
    for metric in search_result.search.objectives:
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
    search_result = ablation.sweep.search
    results = {result.id: result for result in ablation.results}
    for study in ablation.sweep.studies if search_result else ():
        assert search_result
        for trial in search_result.finalists:
            if trial.study == study.name:
                arm = next((arm for arm in study.arms if arm.name == trial.name), study.arms[0])
                yield (
                    trial,
                    {
                        metric: cells.new_cell(cells.arm_outcome(arm, metric, results))
                        for metric in search_result.search.objectives
                    },
                )
