"""What a table says, in sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfsup.reporting import stats
from selfsup.reporting.cells import Cell, claims
from selfsup.reporting.crossed import crossing
from selfsup.reporting.notes import Spreads
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import counts, heading, interval, listed, probability, shorter, some, words

if TYPE_CHECKING:
    from selfsup.reporting.tables import Line, Table

NAMED = 3  # claims that a sentence makes one by one; more are put together


def of_table(table: "Table", spreads: Spreads) -> tuple[str, ...]:
    """Of a study: a sentence for metrics that say the same; one for arms that have no result for the same reason."""
    said: dict[str, list[str]] = {}
    for metric, spread in spreads.items():
        said.setdefault(_clauses(table, metric, spread), []).append(heading(metric))
    sentences = (f"{table.title}, {listed(metrics)}{clauses}." for clauses, metrics in said.items())
    return (*sentences, *_without(table.title, table.lines))


def of_methods(
    methods: "Sequence[Line]", floor: "Sequence[tuple[Line, Sequence[Line]]]", spreads: Spreads
) -> tuple[str, ...]:
    """floor: baselines, each with the methods that have it for theirs."""
    said: dict[str, list[str]] = {}
    for metric, spread in spreads.items():
        parts = [*_best(methods, metric), *_sunk(floor, metric)]
        tested = claims(spread) and sum(line.cells[metric].n > 1 for line in methods) > 1
        if tested and not parts:
            parts = ["the methods cannot be told apart"]
        if parts:
            said.setdefault("; ".join(parts), []).append(heading(metric))
    return (*(f"{listed(metrics)}: {parts}." for parts, metrics in said.items()), *_without("method", methods))


def _clauses(table: "Table", metric: str, spread: Spread | None) -> str:
    default = next((line for line in table.lines if line.arm.default), None)
    cells = [line.cells[metric] for line in table.lines if line.cells[metric].n]
    if default is None or not cells:
        return ": no results yet"
    number = f" (n = {counts([cell.n for cell in cells])})"
    if spread is None and any(cell.n > 1 for cell in cells):
        return f"{number}: every seed gave the same number, so chance cannot be judged"
    tested = [line for line in table.lines if line.cells[metric].p is not None]
    if spread is None or not tested:
        return f"{number}: too few seeds to tell"
    if len(table.varied) > 1:
        parts = [*_of_grid(table.lines, default, metric), *_interaction(table, metric, spread)]
    else:
        parts = [*_claims(default, tested, metric), *_undecided(default, tested, metric)]
        parts += _best(table.lines, metric) if len(tested) > 1 else []
    untested = [_name(line) for line in table.lines if line.cells[metric].n == 1]
    parts += [f"too few seeds to tell about {some(untested)}"] if untested else []
    return f"{number}: {'; '.join(parts)}"


def _claims(default: "Line", tested: "Sequence[Line]", metric: str) -> Iterator[str]:
    sure = [line for line in tested if _differs(line.cells[metric])]
    if len(sure) <= NAMED:
        yield from (_claim(default, line, metric) for line in sure)
        return
    for sign in (1, -1):
        if side := [line for line in sure if sign * (line.cells[metric].difference or 0) > 0]:
            yield _claim(default, side[0], metric) if len(side) == 1 else _together(default, side, metric)


def _claim(default: "Line", line: "Line", metric: str) -> str:
    """`0.75 > 0.5 by 2.1 ± 0.4 (adjusted p = 0.004)`"""
    cell = line.cells[metric]
    assert cell.difference is not None
    assert cell.p is not None
    high, low = (line, default) if cell.difference > 0 else (default, line)
    size = interval(abs(cell.difference), cell.difference_half)
    paired = "" if cell.paired is None else f", paired {probability(cell.paired)}"
    return f"{_name(high)} > {_name(low)} by {size} (adjusted {probability(cell.p)}{paired})"


def _together(default: "Line", lines: "Sequence[Line]", metric: str) -> str:
    """`0.75 > 0.1, 0.2, 0.3 and 0.4 by 2.1 to 8.4 (adjusted p up to 0.004)`: lines on one side of the default."""
    cells = [line.cells[metric] for line in lines]
    names, sizes = listed([_name(line) for line in lines]), sorted(abs(cell.difference or 0) for cell in cells)
    digits = stats.places(max(cell.difference_half or 0 for cell in cells))
    high, low = (names, _name(default)) if (cells[0].difference or 0) > 0 else (_name(default), names)
    paired = [cell.paired for cell in cells if cell.paired is not None]
    p = f"adjusted {_up_to([cell.p or 0 for cell in cells])}{f', paired {_up_to(paired)}' if paired else ''}"
    return f"{high} > {low} by {sizes[0]:.{digits}f} to {sizes[-1]:.{digits}f} ({p})"


def _up_to(p: Sequence[float]) -> str:
    lowest, highest = shorter(min(p)), shorter(max(p))
    return probability(max(p)) if lowest == highest else f"p up to {highest}"


def _undecided(default: "Line", tested: "Sequence[Line]", metric: str) -> Iterator[str]:
    if lines := [line for line in tested if not _differs(line.cells[metric])]:
        yield f"{_name(default)} cannot be told from {some([_name(line) for line in lines], 'or')}"


def _differs(cell: Cell) -> bool:
    return cell.p is not None and cell.p < 1 - stats.LEVEL


def _of_grid(lines: "Sequence[Line]", default: "Line", metric: str) -> Iterator[str]:
    """The highest, what cannot be told from it, how many are worse; how the default stands to it."""
    held = [line for line in lines if line.cells[metric].mean is not None]
    top = max(held, key=lambda line: line.cells[metric].mean or 0)
    ties = [line for line in held if line.cells[metric].tied and line is not top]
    worse = len(held) - 1 - len(ties)
    yield f"the highest is {_as_default(top)} with {top.cells[metric].text}"
    if not worse:
        yield "no other is shown to be worse"
        return
    if ties:
        ties.sort(key=lambda line: not line.arm.default)  # the default is named first
        yield f"{some([_as_default(line) for line in ties])} cannot be told from it"
    yield "the other is worse" if worse == 1 else f"the other {worse} are worse"
    if top.cells[metric].difference is not None and _differs(top.cells[metric]):
        yield _claim(default, top, metric)


def _as_default(line: "Line") -> str:
    return f"the default {_name(line)}" if line.arm.default else _name(line)


def _interaction(table: "Table", metric: str, spread: Spread) -> Iterator[str]:
    """Where every combination has the same seeds."""
    found = crossing(table)
    block = found.block() if found else None
    if found is None or block is None or not claims(spread):
        return
    cells = [[line.cells[metric] for line in row] for row in block]
    sizes = {cell.n for row in cells for cell in row}
    if len(sizes) != 1 or min(len(cells), len(cells[0]), *sizes) < 2:
        return
    effect = stats.interaction(np.array([[cell.mean for cell in row] for row in cells]), sizes.pop(), spread)
    told = f"F({effect.dof[0]}, {effect.dof[1]}) = {effect.f:.1f}, {probability(effect.p)}"
    down, across = words(found.down.name), words(found.across.name)
    if effect.p < 1 - stats.LEVEL:
        yield f"the effect of {down} depends on {across} ({told})"
    else:
        yield f"that the effect of {down} depends on {across} is not shown ({told})"


def _best(lines: "Sequence[Line]", metric: str) -> Iterator[str]:
    """Which arms may be it, where at least one may not."""
    held = [line for line in lines if line.cells[metric].mean is not None]
    kept = [_name(line) for line in held if line.cells[metric].tied]
    if len(kept) == len(held):
        return
    if len(kept) == 1:
        yield f"{kept[0]} is the best"
    elif len(kept) <= NAMED:
        yield f"the best is {listed(kept, 'or')}"
    else:
        yield f"{len(kept)} of {len(held)} may be the best"


def _sunk(floor: "Sequence[tuple[Line, Sequence[Line]]]", metric: str) -> Iterator[str]:
    """Methods that a baseline of theirs matches or beats by the mean."""
    for low, methods in floor:
        level = low.cells[metric].mean
        means = [(line, line.cells[metric].mean) for line in methods]
        sunk = [_name(line) for line, mean in means if mean is not None and level is not None and mean <= level]
        if sunk:
            yield f"not above {low.label}: {listed(sunk)}"


def _without(title: str, lines: "Sequence[Line]") -> Iterator[str]:
    lost: dict[str, list[str]] = {}
    for line in lines:
        if line.failures and not any(cell.n for cell in line.cells.values()):
            reasons = dict.fromkeys(failure.partition(": ")[2] for failure in line.failures)
            lost.setdefault(listed(list(reasons)), []).append(_name(line))
    for why, names in lost.items():
        yield f"{title} {some(names)} {'has' if len(names) == 1 else 'have'} no result ({why})."


def _name(line: "Line") -> str:
    return f"({line.label})" if ", " in line.label else line.label
