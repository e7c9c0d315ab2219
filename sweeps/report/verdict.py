"""The verdict of a table, in sentences."""

from collections.abc import Iterator, Sequence

import numpy as np

from selfsup.sweeps.report import stats
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.decision import Decision
from selfsup.sweeps.report.notes import Decisions
from selfsup.sweeps.report.table import Line, Table
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    interval,
    listed,
    places,
    probability,
    shorter,
    some,
)

MOST_NAMED = 3  # claims that a sentence makes one by one; more are put together


def table_sentences(table: Table, decisions: Decisions, primary: str = "") -> tuple[str, ...]:
    """Write a sentence per group of metrics that say the same, and one per reason why arms have no result.

    primary: the one metric that claims are made of; "" for all.
    """
    headings_by_clauses: dict[str, list[str]] = {}
    for metric, decided in decisions.items():
        if primary in ("", metric):
            headings_by_clauses.setdefault(_clauses(table, metric, decided), []).append(heading(metric))
    sentences = (f"{table.title}, {listed(metrics)}{clauses}." for clauses, metrics in headings_by_clauses.items())
    return (*sentences, *_without_result(table.title, table.lines))


def methods_sentences(
    methods: Sequence[Line],
    floor: "Sequence[tuple[Line, Sequence[Line]]]",
    decisions: Decisions,
    primary: str = "",
) -> tuple[str, ...]:
    """Write the sentences on methods. floor: baselines, each with the methods that began as it."""
    headings_by_clauses: dict[str, list[str]] = {}
    for metric, decided in decisions.items():
        if primary not in ("", metric):
            continue
        parts = [*_best(methods, metric), *_against_baselines(floor, metric)]
        tested = decided.can_claim and sum(line.cells[metric].n > 1 for line in methods) > 1
        if tested and not parts:
            parts = ["the methods cannot be told apart"]
        if parts := [*parts, *_failures_and_pending(methods, metric)]:
            headings_by_clauses.setdefault("; ".join(parts), []).append(heading(metric))
    return (
        *(f"{listed(metrics)}: {parts}." for parts, metrics in headings_by_clauses.items()),
        *_without_result("method", methods),
    )


def _clauses(table: Table, metric: str, decided: Decision) -> str:
    default = next((line for line in table.lines if line.arm.default), None)
    cells = [line.cells[metric] for line in table.lines if line.cells[metric].n]
    if default is None or not cells:
        return ": no results yet"
    number = f" (n = {counts([cell.n for cell in cells])})"
    clauses = [
        *_comparisons(table, default, metric, decided),
        *_behind(table.lines, metric),
        *_failures_and_pending(table.lines, metric),
    ]
    return f"{number}: {'; '.join(clauses)}"


def _comparisons(table: Table, default: Line, metric: str, decided: Decision) -> Iterator[str]:
    tested = [line for line in table.lines if line.cells[metric].p is not None]
    if decided.spread is None and any(line.cells[metric].n > 1 for line in table.lines):
        yield "every seed gave the same number, so chance cannot be judged"
        return
    if decided.spread is None or not tested:
        yield "too few seeds to tell"
        return
    if len(table.varied) > 1:
        yield from (*_grid_sentences(table.lines, default, metric), *_interaction(table, metric, decided))
    else:
        yield from (*_claims(default, tested, metric), *_ties(default, tested, metric))
        yield from _best(table.lines, metric) if len(tested) > 1 else ()
    untested = [_name(line) for line in table.lines if line.cells[metric].n == 1]
    yield from [f"too few seeds to tell about {some(untested)}"] if untested else ()


def _failures_and_pending(lines: Sequence[Line], metric: str) -> Iterator[str]:
    """Yield `2 of 4 seeds of 0.9 diverged`, and which arms have pending runs."""
    for line in lines:
        cell = line.cells[metric]
        if cell.diverged and cell.n:
            yield f"{cell.diverged} of {cell.planned} seeds of {_name(line)} diverged"
    if waiting := [_name(line) for line in lines if line.cells[metric].pending]:
        yield f"pending: {some(waiting)}"


def _claims(default: Line, tested: Sequence[Line], metric: str) -> Iterator[str]:
    claimed = [line for line in tested if line.cells[metric].differs]
    if len(claimed) <= MOST_NAMED:
        yield from (_claim(default, line, metric) for line in claimed)
        return
    for sign in (1, -1):
        if side := [line for line in claimed if sign * (line.cells[metric].difference or 0) > 0]:
            yield _claim(default, side[0], metric) if len(side) == 1 else _joint_claim(default, side, metric)


def _claim(default: Line, line: Line, metric: str) -> str:
    """Write `0.75 > 0.5 by 2.1 ± 0.4 (adjusted p = 0.004)`."""
    cell = line.cells[metric]
    assert cell.difference is not None
    assert cell.p is not None
    better, worse = (line, default) if cell.scale.sign * cell.difference > 0 else (default, line)
    size = interval(abs(cell.difference), cell.difference_half, sign="+").removeprefix("+")
    return f"{_name(better)} {_sides(cell)} {_name(worse)} by {size} (adjusted {probability(cell.p)})"


def _joint_claim(default: Line, lines: Sequence[Line], metric: str) -> str:
    """Write `0.75 > 0.1, 0.2 and 0.3 by 2.1 to 8.4 (adjusted p up to 0.004)`, for arms on one side of the default."""
    cells = [line.cells[metric] for line in lines]
    names, sizes = listed([_name(line) for line in lines]), sorted(abs(cell.difference or 0) for cell in cells)
    digits = places(max(cell.difference_half or 0 for cell in cells))
    above = cells[0].scale.sign * (cells[0].difference or 0) > 0
    better, worse = (names, _name(default)) if above else (_name(default), names)
    p = f"adjusted {_up_to([cell.p or 0 for cell in cells])}"
    return f"{better} {_sides(cells[0])} {worse} by {sizes[0]:.{digits}f} to {sizes[-1]:.{digits}f} ({p})"


def _sides(cell: Cell) -> str:
    """Return what stands between the better and the worse number."""
    return ">" if cell.scale.sign > 0 else "<"


def _up_to(p: Sequence[float]) -> str:
    lowest, highest = shorter(min(p)), shorter(max(p))
    return probability(max(p)) if lowest == highest else f"p up to {highest}"


def _ties(default: Line, tested: Sequence[Line], metric: str) -> Iterator[str]:
    if lines := [line for line in tested if not line.cells[metric].differs]:
        yield f"{_name(default)} cannot be told from {some([_name(line) for line in lines], 'or')}"


def _grid_sentences(lines: Sequence[Line], default: Line, metric: str) -> Iterator[str]:
    """Yield the best mean, what ties with it, how many are shown to be worse, and how the default compares."""
    replicated = [line for line in lines if line.cells[metric].n > 1]
    top = next(line for line in replicated if line.cells[metric].best)
    ties = [line for line in replicated if line.cells[metric].tied and line is not top]
    below = len(replicated) - 1 - len(ties)
    best, under = ("highest", "below") if top.cells[metric].scale.sign > 0 else ("lowest", "above")
    yield f"the {best} is {_as_default(top)} with {top.cells[metric].text}"
    if not below:
        yield f"no other is shown to be {under} it"
        return
    if ties:
        ties.sort(key=lambda line: not line.arm.default)  # the default is named first
        yield f"{some([_as_default(line) for line in ties])} cannot be told from it"
    yield f"the other{f' {below}' * (below > 1)} {'is' if below == 1 else 'are'} shown to be {under} the best"
    if top.cells[metric].difference is not None and top.cells[metric].differs:
        yield _claim(default, top, metric)


def _as_default(line: Line) -> str:
    return f"the default {_name(line)}" if line.arm.default else _name(line)


def _interaction(table: Table, metric: str, decided: Decision) -> Iterator[str]:
    """Yield the F test where every combination has the same seeds; notes.INTERACTION says why it is no claim."""
    crossed = crossing(table)
    block = crossed.block() if crossed else None
    spread = decided.spread
    if crossed is None or block is None or spread is None or not decided.can_claim:
        return
    cells = [[line.cells[metric] for line in row] for row in block]
    sizes = {cell.n for row in cells for cell in row}
    if len(sizes) != 1 or min(len(cells), len(cells[0]), *sizes) < 2:
        return
    effect = stats.interaction(np.array([[cell.mean for cell in row] for row in cells]), sizes.pop(), spread)
    test = f"F({effect.dof[0]}, {effect.dof[1]}) = {effect.f:.1f}, {probability(effect.p)}"
    yield f"of their interaction nothing is claimed ({test})"


def _best(lines: Sequence[Line], metric: str) -> Iterator[str]:
    """Yield which arms may be the best, if some may not. None is called the best while some lack two seeds."""
    replicated = [line for line in lines if line.cells[metric].n > 1]
    names = [_name(line) for line in replicated if line.cells[metric].tied]
    if len(names) == len(replicated):
        return
    if any(line.cells[metric].pending for line in lines):
        yield f"of {len(replicated)} with enough seeds so far {some(names)} may be the best"
    elif len(replicated) < len(lines):
        yield f"of the {len(replicated)} with enough seeds {some(names)} may be the best"
    elif len(names) == 1:
        yield f"{names[0]} is the best"
    elif len(names) <= MOST_NAMED:
        yield f"the best is {listed(names, 'or')}"
    else:
        yield f"{len(names)} of {len(replicated)} may be the best"


def _behind(lines: Sequence[Line], metric: str) -> Iterator[str]:
    """Yield that the best mean is no better than a baseline's."""
    for cell in (line.cells[metric] for line in lines):
        if cell.behind:
            yield f"the best mean is not {_side(cell)} {listed(cell.behind, 'or')}"
            return


def _side(cell: Cell) -> str:
    """Return on which side of a worse number a better one is."""
    return "above" if cell.scale.sign > 0 else "below"


def _against_baselines(floor: "Sequence[tuple[Line, Sequence[Line]]]", metric: str) -> Iterator[str]:
    """Yield how methods compare with their baselines: by a test where the baseline has seeds, else by the mean."""
    for baseline, methods in floor:
        baseline_mean = baseline.cells[metric].mean
        known = [line for line in methods if line.cells[metric].mean is not None and baseline_mean is not None]
        tested = [line for line in known if line.cells[metric].p is not None and baseline.cells[metric].n > 1]
        yield from (_claim(baseline, line, metric) for line in tested if line.cells[metric].differs)
        if unsure := [_name(line) for line in tested if not line.cells[metric].differs]:
            yield f"not told from {baseline.label}: {listed(unsure)}"
        if any(baseline.label in line.cells[metric].behind for line in tested if not line.cells[metric].differs):
            yield f"the best mean is not {_side(baseline.cells[metric])} {baseline.label}"
        no_better = [line for line in known if line not in tested and not _beats(line.cells[metric], baseline_mean)]
        if no_better:
            side, names = _side(no_better[0].cells[metric]), listed([_name(line) for line in no_better])
            yield f"mean not {side} {baseline.label}: {names}"


def _beats(cell: Cell, mean: float | None) -> bool:
    return cell.scale.sign * ((cell.mean or 0) - (mean or 0)) > 0


def _without_result(title: str, lines: Sequence[Line]) -> Iterator[str]:
    names_by_reason: dict[str, list[str]] = {}
    for line in lines:
        if line.failures and not any(cell.n for cell in line.cells.values()):
            reasons = dict.fromkeys(failure.partition(": ")[2] for failure in line.failures)
            names_by_reason.setdefault(listed(list(reasons)), []).append(_name(line))
    for why, names in names_by_reason.items():
        yield f"{title} {some(names)} {'has' if len(names) == 1 else 'have'} no result ({why})."


def _name(line: Line) -> str:
    return f"({line.label})" if ", " in line.label else line.label
