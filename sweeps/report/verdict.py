"""What a table says, in sentences."""

from collections.abc import Iterator, Sequence

import numpy as np

from selfsup.sweeps.report import stats
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.decision import Decision
from selfsup.sweeps.report.notes import Decisions
from selfsup.sweeps.report.table import Line, Table
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    interval,
    listed,
    probability,
    shorter,
    some,
)

NAMED = 3  # claims that a sentence makes one by one; more are put together


def of_table(table: Table, decisions: Decisions, primary: str = "") -> tuple[str, ...]:
    """Tell of a study: a sentence for metrics that say the same; one for arms that have no result for the same reason.

    primary: the one metric that claims are made of; "" for all.
    """
    said: dict[str, list[str]] = {}
    for metric, decided in decisions.items():
        if primary in ("", metric):
            said.setdefault(_clauses(table, metric, decided), []).append(heading(metric))
    sentences = (f"{table.title}, {listed(metrics)}{clauses}." for clauses, metrics in said.items())
    return (*sentences, *_without(table.title, table.lines))


def of_methods(
    methods: Sequence[Line],
    floor: "Sequence[tuple[Line, Sequence[Line]]]",
    decisions: Decisions,
    primary: str = "",
) -> tuple[str, ...]:
    """Tell of methods side by side. floor: baselines, each with the methods that have it for theirs."""
    said: dict[str, list[str]] = {}
    for metric, decided in decisions.items():
        if primary not in ("", metric):
            continue
        parts = [*_best(methods, metric), *_sunk(floor, metric)]
        tested = decided.able and sum(line.cells[metric].n > 1 for line in methods) > 1
        if tested and not parts:
            parts = ["the methods cannot be told apart"]
        if parts := [*parts, *_lost(methods, metric)]:
            said.setdefault("; ".join(parts), []).append(heading(metric))
    return (*(f"{listed(metrics)}: {parts}." for parts, metrics in said.items()), *_without("method", methods))


def _clauses(table: Table, metric: str, decided: Decision) -> str:
    default = next((line for line in table.lines if line.arm.default), None)
    cells = [line.cells[metric] for line in table.lines if line.cells[metric].n]
    if default is None or not cells:
        return ": no results yet"
    number = f" (n = {counts([cell.n for cell in cells])})"
    return f"{number}: {'; '.join([*_told(table, default, metric, decided), *_lost(table.lines, metric)])}"


def _told(table: Table, default: Line, metric: str, decided: Decision) -> Iterator[str]:
    tested = [line for line in table.lines if line.cells[metric].p is not None]
    if decided.spread is None and any(line.cells[metric].n > 1 for line in table.lines):
        yield "every seed gave the same number, so chance cannot be judged"
        return
    if decided.spread is None or not tested:
        yield "too few seeds to tell"
        return
    if len(table.varied) > 1:
        yield from (*_of_grid(table.lines, default, metric), *_interaction(table, metric, decided))
    else:
        yield from (*_claims(default, tested, metric), *_undecided(default, tested, metric))
        yield from _best(table.lines, metric) if len(tested) > 1 else ()
    untested = [_name(line) for line in table.lines if line.cells[metric].n == 1]
    yield from [f"too few seeds to tell about {some(untested)}"] if untested else ()


def _lost(lines: Sequence[Line], metric: str) -> Iterator[str]:
    """Tell `2 of 4 seeds of 0.9 diverged`, and which arms are not whole yet."""
    for line in lines:
        cell = line.cells[metric]
        if cell.diverged and cell.n:
            yield f"{cell.diverged} of {cell.planned} seeds of {_name(line)} diverged"
    if waiting := [_name(line) for line in lines if line.cells[metric].pending]:
        yield f"pending: {some(waiting)}"


def _claims(default: Line, tested: Sequence[Line], metric: str) -> Iterator[str]:
    sure = [line for line in tested if line.cells[metric].differs]
    if len(sure) <= NAMED:
        yield from (_claim(default, line, metric) for line in sure)
        return
    for sign in (1, -1):
        if side := [line for line in sure if sign * (line.cells[metric].difference or 0) > 0]:
            yield _claim(default, side[0], metric) if len(side) == 1 else _together(default, side, metric)


def _claim(default: Line, line: Line, metric: str) -> str:
    """Write `0.75 > 0.5 by 2.1 ± 0.4 (adjusted p = 0.004)`"""
    cell = line.cells[metric]
    assert cell.difference is not None
    assert cell.p is not None
    high, low = (line, default) if cell.difference > 0 else (default, line)
    size = interval(abs(cell.difference), cell.difference_half, sign="+").removeprefix("+")
    return f"{_name(high)} > {_name(low)} by {size} (adjusted {probability(cell.p)})"


def _together(default: Line, lines: Sequence[Line], metric: str) -> str:
    """Write `0.75 > 0.1, 0.2 and 0.3 by 2.1 to 8.4 (adjusted p up to 0.004)`: lines on one side of the default."""
    cells = [line.cells[metric] for line in lines]
    names, sizes = listed([_name(line) for line in lines]), sorted(abs(cell.difference or 0) for cell in cells)
    digits = stats.places(max(cell.difference_half or 0 for cell in cells))
    high, low = (names, _name(default)) if (cells[0].difference or 0) > 0 else (_name(default), names)
    p = f"adjusted {_up_to([cell.p or 0 for cell in cells])}"
    return f"{high} > {low} by {sizes[0]:.{digits}f} to {sizes[-1]:.{digits}f} ({p})"


def _up_to(p: Sequence[float]) -> str:
    lowest, highest = shorter(min(p)), shorter(max(p))
    return probability(max(p)) if lowest == highest else f"p up to {highest}"


def _undecided(default: Line, tested: Sequence[Line], metric: str) -> Iterator[str]:
    if lines := [line for line in tested if not line.cells[metric].differs]:
        yield f"{_name(default)} cannot be told from {some([_name(line) for line in lines], 'or')}"


def _of_grid(lines: Sequence[Line], default: Line, metric: str) -> Iterator[str]:
    """Tell the highest, what cannot be told from it, how many are shown to be below; how the default stands to it."""
    held = [line for line in lines if line.cells[metric].n > 1]
    top = next(line for line in held if line.cells[metric].best)
    ties = [line for line in held if line.cells[metric].tied and line is not top]
    below = len(held) - 1 - len(ties)
    yield f"the highest is {_as_default(top)} with {top.cells[metric].text}"
    if not below:
        yield "no other is shown to be below it"
        return
    if ties:
        ties.sort(key=lambda line: not line.arm.default)  # the default is named first
        yield f"{some([_as_default(line) for line in ties])} cannot be told from it"
    yield f"the other{f' {below}' * (below > 1)} {'is' if below == 1 else 'are'} shown to be below the best"
    if top.cells[metric].difference is not None and top.cells[metric].differs:
        yield _claim(default, top, metric)


def _as_default(line: Line) -> str:
    return f"the default {_name(line)}" if line.arm.default else _name(line)


def _interaction(table: Table, metric: str, decided: Decision) -> Iterator[str]:
    """Tell of an F test where every combination has the same seeds; why it is no claim: notes.INTERACTION."""
    found = crossing(table)
    block = found.block() if found else None
    spread = decided.spread
    if found is None or block is None or spread is None or not decided.able:
        return
    cells = [[line.cells[metric] for line in row] for row in block]
    sizes = {cell.n for row in cells for cell in row}
    if len(sizes) != 1 or min(len(cells), len(cells[0]), *sizes) < 2:
        return
    effect = stats.interaction(np.array([[cell.mean for cell in row] for row in cells]), sizes.pop(), spread)
    told = f"F({effect.dof[0]}, {effect.dof[1]}) = {effect.f:.1f}, {probability(effect.p)}"
    yield f"of their interaction nothing is claimed ({told})"


def _best(lines: Sequence[Line], metric: str) -> Iterator[str]:
    """Tell which arms may be it, if one may not. While some have no two seeds yet, none is called the best."""
    held = [line for line in lines if line.cells[metric].n > 1]
    kept = [_name(line) for line in held if line.cells[metric].tied]
    if len(kept) == len(held):
        return
    if len(held) < len(lines) or any(line.cells[metric].pending for line in lines):
        yield f"of {len(held)} with enough seeds so far {some(kept)} may be the best"
    elif len(kept) == 1:
        yield f"{kept[0]} is the best"
    elif len(kept) <= NAMED:
        yield f"the best is {listed(kept, 'or')}"
    else:
        yield f"{len(kept)} of {len(held)} may be the best"


def _sunk(floor: "Sequence[tuple[Line, Sequence[Line]]]", metric: str) -> Iterator[str]:
    """Tell how methods stand to a baseline of theirs: by a test where it has seeds, else by the mean."""
    for low, methods in floor:
        level = low.cells[metric].mean
        held = [line for line in methods if line.cells[metric].mean is not None and level is not None]
        tested = [line for line in held if line.cells[metric].p is not None and low.cells[metric].n > 1]
        yield from (_claim(low, line, metric) for line in tested if line.cells[metric].differs)
        if unsure := [_name(line) for line in tested if not line.cells[metric].differs]:
            yield f"not told from {low.label}: {listed(unsure)}"
        sunk = [line for line in held if line not in tested and (line.cells[metric].mean or 0) <= (level or 0)]
        if sunk:
            yield f"mean not above {low.label}: {listed([_name(line) for line in sunk])}"


def _without(title: str, lines: Sequence[Line]) -> Iterator[str]:
    lost: dict[str, list[str]] = {}
    for line in lines:
        if line.failures and not any(cell.n for cell in line.cells.values()):
            reasons = dict.fromkeys(failure.partition(": ")[2] for failure in line.failures)
            lost.setdefault(listed(list(reasons)), []).append(_name(line))
    for why, names in lost.items():
        yield f"{title} {some(names)} {'has' if len(names) == 1 else 'have'} no result ({why})."


def _name(line: Line) -> str:
    return f"({line.label})" if ", " in line.label else line.label
