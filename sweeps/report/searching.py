"""What a report says of a search: what was searched, its best trials, and what fresh seeds say of them."""

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
    """What was searched, and how: `{"Space": ..., "Trials": ...}`"""
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
        "Trials": _counted(searched),
    }


def sentences(ablation: Ablation) -> list[str]:
    """What came of a search; nothing of a sweep that was none."""
    searched = ablation.sweep.search
    if searched is None:
        return []
    so_far = "" if searched.over else " so far"
    if not searched.best:
        return [f"No trial came to a result{so_far}."]
    said = [_front(searched, so_far) if len(searched.search.objectives) > 1 else _first(searched, so_far)]
    if len(searched.ended) < FEWEST:
        said.append(f"Which knobs matter is told from {FEWEST} trials with a result on.")
    elif alike(searched):
        said.append("Which knobs matter is not told: no trial is better than the others.")
    confirmed = list(_confirmed(ablation))
    return [*said, *confirmed[: len(searched.search.objectives) < 2], CURSE]


def blocks(ablation: Ablation) -> list[Block]:
    """Its tables: the best trials; and once they are there, the numbers from fresh seeds beside those that won."""
    searched = ablation.sweep.search
    if searched is None or not searched.best:
        return []
    several = len(searched.search.objectives) > 1
    shown = searched.best if several else searched.ranked[:LEADERS]
    made = [Block("Pareto front" if several else "best trials", _leaders(searched, shown))]
    if confirmed := list(_again(ablation)):
        made.append(Block("in the search and from fresh seeds", confirmed))
    return made


def rows(sweep: Sweep) -> Iterator[dict[str, object]]:
    """Of a long table, as those of arms: one for each trial and metric."""
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


def _counted(searched: Searched) -> str:
    """`30: 12 with a result, 16 stopped, 2 failed`"""
    status: Counter[str] = Counter(trial.result.status for trial in searched.trials)
    names = {"stopped": "stopped", "failed": "failed", "running": "running", "planned": "interrupted"}
    without = status["finished"] - len(searched.ended)
    counts = [f"{len(searched.ended)} with a result"]
    counts += [f"{without} finished without the metric"] if without else []
    counts += [f"{status[name]} {word}" for name, word in names.items() if status[name]]
    return f"{len(searched.trials)}: {', '.join(counts)}"


def _first(searched: Searched, so_far: str) -> str:
    (metric,), (best,) = searched.search.objectives, searched.best
    of = f"{len(searched.ended)}{so_far}"
    return f"The best of {of} by {heading(metric)} is {best.name} with {_number(best.metrics[metric])}."


def _front(searched: Searched, so_far: str) -> str:
    metrics = [heading(metric) for metric in searched.search.objectives]
    best, chosen = ([str(trial.number) for trial in trials] for trials in (searched.best, searched.finalists))
    front = f"Trials {some(best, most=LEADERS)} are" if len(best) > 1 else f"Trial {best[0]} is"
    said = f"{front} the Pareto front{so_far} of {len(searched.ended)} in {listed(metrics)}."
    between = f" Of these {listed(chosen)} are trained again: the ends by {metrics[0]} and, evenly, from between."
    return said + between * (len(chosen) < len(best))


def _confirmed(ablation: Ablation) -> Iterator[str]:
    """A sentence for each finalist that has numbers from fresh seeds."""
    for trial, found in _fresh(ablation):
        said = [_clause(trial, metric, cell) for metric, cell in found.items() if cell.n or cell.diverged]
        if said:
            yield f"{trial.name.capitalize()} from {len(ablation.sweep.seeds)} fresh seeds: {'; '.join(said)}."


def _clause(trial: Trial, metric: str, cell: Cell) -> str:
    """`knn top-1 71.6 ± 2.3, in the search 75.2 (-3.6)`"""
    lost = [f"{cell.diverged} of {cell.planned} seeds diverged"] if cell.diverged else []
    n = "" if cell.n == cell.planned else f" ({'; '.join([f'n = {cell.n}', *lost])})"
    won = f"{_number(trial.metrics[metric])} ({_change(trial, metric, cell)})"
    return f"{heading(metric)} {cell.text}{n}, in the search {won}"


def _leaders(searched: Searched, shown: list[Trial]) -> list[Column]:
    """Above them the defaults, which were not searched. A knob that a study does not have is left empty."""
    several = len(searched.space) > 1
    defaults = list(searched.defaults.items())
    columns = [Column("", "trial", [*["default"] * len(defaults), *(str(trial.number) for trial in shown)], key=True)]
    if several:
        columns.append(Column("", "study", [*searched.defaults, *(trial.study for trial in shown)]))
    rows = [*(values for _, values in defaults), *(trial.values for trial in shown)]
    for path, name in short_names(line.path for lines in searched.space.values() for line in lines).items():
        columns.append(Column("", words(name), [short(row[path]) if path in row else "" for row in rows]))
    for metric in searched.search.objectives:
        values = [_number(trial.metrics[metric]) for trial in shown]
        columns.append(Column("", heading(metric), [*[NOTHING] * len(defaults), *values]))
    return columns


def _again(ablation: Ablation) -> Iterator[Column]:
    """A row a finalist."""
    found = [(trial, held) for trial, held in _fresh(ablation) if any(cell.n for cell in held.values())]
    if not found:
        return
    yield Column("", "trial", [str(trial.number) for trial, _ in found], key=True)
    for metric in found[0][1]:
        yield Column("", f"{heading(metric)}, search", [_number(trial.metrics[metric]) for trial, _ in found])
        yield Column("", "fresh seeds", [held[metric].text for _, held in found])
        yield Column("", "difference", [_change(trial, metric, held[metric]) for trial, held in found])
    yield Column("", "n", [str(max(cell.n for cell in held.values())) for _, held in found])


def _change(trial: Trial, metric: str, cell: Cell) -> str:
    return (
        NOTHING
        if cell.mean is None
        else interval(cell.mean - trial.metrics[metric], cell.half, sign="+").partition(" ±")[0]
    )


def _fresh(ablation: Ablation) -> Iterator[tuple[Trial, Mapping[str, Cell]]]:
    """Each finalist with a cell for every metric of the search, of the runs from fresh seeds. One that is the default
    itself has the cells of that.
    """
    searched = ablation.sweep.search
    found = {result.id: result for result in ablation.results}
    for study in ablation.sweep.studies if searched else ():
        assert searched
        for trial in searched.finalists:
            if trial.study == study.name:
                arm = next((arm for arm in study.arms if arm.name == trial.name), study.arms[0])
                yield (
                    trial,
                    {metric: cells.cell(cells.outcome(arm, metric, found)) for metric in searched.search.objectives},
                )
