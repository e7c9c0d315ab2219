"""A table as columns of plain text, for every format that prints text."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from selfsup.reporting.cells import NOTHING, Cell
from selfsup.reporting.tables import Ablation, Line, Table
from selfsup.reporting.wording import counts, heading, interval, shorter


class Column(NamedTuple):
    """group: the metric that it belongs to, or "". texts: one a line of the table."""

    group: str
    name: str
    texts: list[str]

    @property
    def head(self) -> str:
        return self.group if self.name == "mean" else self.name


def columns_of(table: Table, *, default: str, mark: Callable[[Cell], str]) -> list[Column]:
    """Labels; of each metric its means and, where there are any, differences, p and expected numbers; n.

    default: how the default's label is written, with {} for it.
    """
    labels = [default.format(line.label) if _is_default(table, line) else line.label for line in table.lines]
    columns = [Column("", table.title, labels)]
    for metric in table.metrics:
        columns += _of_metric(heading(metric), [line.cells[metric] for line in table.lines], mark)
    return [*columns, Column("", "n", [seeds(line) for line in table.lines])]


def seeds(line: Line) -> str:
    """`3`, or `2 of 3` where seeds are missing."""
    n, planned = (
        counts([cell.n for cell in line.cells.values()]),
        counts([cell.planned for cell in line.cells.values()]),
    )
    return n if n == planned else f"{n} of {planned}"


def title(table: Table) -> str:
    return f"{table.study}: {table.title}" if table.study else table.title


def failures(table: Table) -> list[str]:
    return [f"{line.label}: {reason}" for line in table.lines for reason in line.failures]


def verdicts(ablation: Ablation) -> list[str]:
    """Every sentence, with its study's name before it where there are several."""
    several = len(ablation.sweep.studies) > 1
    return [
        f"{table.study}: {said}" if several and table.study else said
        for table in ablation.tables
        for said in table.verdict
    ]


def _is_default(table: Table, line: Line) -> bool:
    """Of a study. In the table of methods every line is one, and none is marked."""
    return bool(table.study) and line.arm.default


def _of_metric(name: str, cells: Sequence[Cell], mark: Callable[[Cell], str]) -> Iterator[Column]:
    yield Column(name, "mean", [mark(cell) for cell in cells])
    if any(cell.difference is not None for cell in cells):
        yield Column(name, "Δ", [_difference(cell) for cell in cells])
    if any(cell.p is not None for cell in cells):
        yield Column(name, "p", [NOTHING if cell.p is None else shorter(cell.p) for cell in cells])
    if any(cell.paired is not None for cell in cells):
        yield Column(name, "paired p", [NOTHING if cell.paired is None else shorter(cell.paired) for cell in cells])
    if any(cell.expected is not None for cell in cells):
        yield Column(name, "paper", [NOTHING if cell.expected is None else f"{cell.expected:g}" for cell in cells])


def _difference(cell: Cell) -> str:
    if cell.difference is None:
        return NOTHING
    return interval(cell.difference, cell.difference_half, sign="+")
