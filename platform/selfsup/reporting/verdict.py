"""What a table says, in sentences; and what its numbers rest on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from selfsup.reporting import stats
from selfsup.reporting.cells import Cell, claims
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import counts, heading, interval, listed, probability
from selfsup.sweepspec.arms import Study

if TYPE_CHECKING:
    from selfsup.reporting.tables import Line

Spreads = Mapping[str, Spread | None]
NAMED = 3  # arms that a sentence names; more are counted

COVERS = (
    "Mean ± 95 % interval over pretraining seeds, which draw initial weights, order, views and probe anew; it does not "
    "cover the choice of test images."
)
DUNNETT = (
    "Differences to the default: Dunnett's test, two-sided, adjusted for all arms of the study but not for the number "
    "of metrics; it assumes normal deviations of one size in all arms."
)
HSU = (
    "Marked are the highest mean and all that Dunnett's test, with each arm in turn as its reference, does not put "
    "below another: the true best is among them with 95 % (Hsu). What is not marked is worse."
)
PAIRED = "From 6 common seeds on, p of exact paired sign flips stands beside, adjusted by the largest statistic."
ALONE = "One factor was varied at a time: interactions were not tested."
FLOOR = "Baselines train nothing: their intervals are their own, and they are marked in nothing."


def of_factor(title: str, lines: "Sequence[Line]", spreads: Spreads) -> tuple[str, ...]:
    """A sentence a metric; one about arms without any result."""
    said = [f"{title}, {heading(metric)}{_clauses(lines, metric, spread)}." for metric, spread in spreads.items()]
    return (*said, *_without(title, lines))


def of_methods(methods: "Sequence[Line]", floor: "Sequence[Line]", spreads: Spreads) -> tuple[str, ...]:
    said = []
    for metric, spread in spreads.items():
        parts = [*_best(methods, metric), *_sunk(methods, floor, metric)]
        tested = claims(spread) and sum(line.cells[metric].n > 1 for line in methods) > 1
        if tested and not parts:
            parts = ["the methods cannot be told apart"]
        if parts:
            said.append(f"{heading(metric)}: {'; '.join(parts)}.")
    return (*said, *_without("method", methods))


def note(study: Study | None, spreads: Spreads, *, grid: bool = False) -> str:
    """study: None for the table of methods."""
    over = f"the {len(study.arms)} arms of the study" if study else "all trained arms of the sweep"
    each = [
        f"{found.deviation:.2g} with {found.dof} degrees of freedom ({heading(metric)})"
        for metric, found in spreads.items()
        if found
    ]
    rests = f"The deviation between seeds is pooled over {over}: {listed(each) or 'not known yet'}."
    if study is None:
        return " ".join([COVERS, rests, HSU, FLOOR])
    source = [f"Expected numbers: {study.source}."] if study.source else []
    return " ".join([COVERS, rests, DUNNETT, HSU, PAIRED, *([] if grid else [ALONE]), *source])


def _clauses(lines: "Sequence[Line]", metric: str, spread: Spread | None) -> str:
    default = next((line for line in lines if line.arm.default), None)
    cells = [line.cells[metric] for line in lines if line.cells[metric].n]
    if default is None or not cells:
        return ": no results yet"
    number = f" (n = {counts([cell.n for cell in cells])})"
    if spread is None and any(cell.n > 1 for cell in cells):
        return f"{number}: every seed gave the same number, so chance cannot be judged"
    tested = [line for line in lines if line.cells[metric].p is not None]
    if not tested:
        return f"{number}: too few seeds to tell"
    parts = [_claim(default, line, metric) for line in tested if _differs(line.cells[metric])]
    parts += _undecided(default, [line for line in tested if not _differs(line.cells[metric])])
    parts += _best(lines, metric) if len(tested) > 1 else []
    untested = [_name(line) for line in lines if line.cells[metric].n == 1]
    parts += [f"too few seeds to tell about {listed(untested)}"] if untested else []
    return f"{number}: {'; '.join(parts)}"


def _differs(cell: Cell) -> bool:
    return cell.p is not None and cell.p < 1 - stats.LEVEL


def _claim(default: "Line", line: "Line", metric: str) -> str:
    """`0.75 > 0.5 by 2.1 ± 0.4 (adjusted p = 0.004)`"""
    cell = line.cells[metric]
    assert cell.difference is not None
    assert cell.p is not None
    high, low = (line, default) if cell.difference > 0 else (default, line)
    size = interval(abs(cell.difference), cell.difference_half)
    paired = "" if cell.paired is None else f", paired {probability(cell.paired)}"
    return f"{_name(high)} > {_name(low)} by {size} (adjusted {probability(cell.p)}{paired})"


def _undecided(default: "Line", lines: "Sequence[Line]") -> Iterator[str]:
    if lines:
        names = [_name(line) for line in lines] if len(lines) <= NAMED else [f"{len(lines)} others"]
        yield f"{_name(default)} cannot be told from {listed(names, 'or')}"


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


def _sunk(methods: "Sequence[Line]", floor: "Sequence[Line]", metric: str) -> Iterator[str]:
    """Methods that a baseline matches or beats by the mean."""
    for low in floor:
        level = low.cells[metric].mean
        means = [(line, line.cells[metric].mean) for line in methods]
        sunk = [_name(line) for line, mean in means if mean is not None and level is not None and mean <= level]
        if sunk:
            yield f"not above {low.label}: {listed(sunk)}"


def _without(title: str, lines: "Sequence[Line]") -> Iterator[str]:
    for line in lines:
        if line.failures and not any(cell.n for cell in line.cells.values()):
            reasons = dict.fromkeys(failure.partition(": ")[2] for failure in line.failures)
            yield f"{title} {_name(line)} has no result ({listed(list(reasons))})."


def _name(line: "Line") -> str:
    return f"({line.label})" if ", " in line.label else line.label
