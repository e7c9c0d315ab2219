"""A table as columns of plain text, for every text format of the report."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from selfsup.sweeps.report.cells import NOTHING, Cell
from selfsup.sweeps.report.crossed import Crossing, crossing
from selfsup.sweeps.report.table import Ablation, Line, Table
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    interval,
    label,
    named,
    probability,
    shorter,
    tick,
    words,
)

Mark = Callable[[Cell], str]


class Column(NamedTuple):
    """A column of a table. group: the metric or factor above it, or "". texts: one per row. key: it names the rows."""

    group: str
    name: str
    texts: list[str]
    key: bool = False

    @property
    def head(self) -> str:
        return self.group if self.name == "mean" else self.name

    @property
    def width(self) -> int:
        return max(map(len, (self.head, *self.texts)))


def folded(columns: Sequence[Column], widest: int) -> Iterator[list[Column]]:
    """Yield the columns in parts of at most so many letters a line, each after those that name the rows.

    The columns of a metric stay together.
    """
    keys, part = [column for column in columns if column.key], list[Column]()
    for _, several in groupby((column for column in columns if not column.key), key=lambda column: column.group):
        group = list(several)
        if part and sum(column.width + 2 for column in (*keys, *part, *group)) > widest:
            yield [*keys, *part]
            part = []
        part += group
    yield [*keys, *part]


class Block(NamedTuple):
    """Columns under a title; "" where the title is the table's own."""

    title: str
    columns: list[Column]


def blocks(table: Table, *, default: str, mark: Mark) -> list[Block]:
    """Lay out a table as blocks: one, or one per metric where two factors are crossed.

    default: a format that marks the default, with {} for its text.
    """
    if crossed := crossing(table):
        return [_block(crossed, table, metric, default, mark) for metric in table.metrics]
    columns = name_columns(table, default)
    for metric in table.metrics:
        columns += _metric_columns(heading(metric), [line.cells[metric] for line in table.lines], mark)
    return [Block("", [*columns, Column("", "n", [seeds(line) for line in table.lines])])]


def name_columns(table: Table, default: str = "{}") -> list[Column]:
    """Return the columns that name the rows: one, or one per factor of a grid. The default is marked in the first."""
    grid = {words(factor.name): [tick(line.arm.values[factor.path]) for line in table.lines] for factor in table.varied}
    texts = grid if len(grid) > 1 else {table.title: [line.label for line in table.lines]}
    first, *others = (Column("", name, column_texts, key=True) for name, column_texts in texts.items())
    marked = [
        default.format(text) if is_default(table, line) else text
        for line, text in zip(table.lines, first.texts, strict=True)
    ]
    return [first._replace(texts=marked), *others]


def seeds(line: Line) -> str:
    """Return `3`, or `2 of 3` where seeds are missing."""
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
    """Return every sentence, preceded by the name of its study where there are several."""
    several = len(ablation.sweep.studies) > 1
    return [
        f"{table.study}: {sentence}" if several and table.study else sentence
        for table in ablation.tables
        for sentence in table.verdict
    ]


def is_default(table: Table, line: Line) -> bool:
    """Return whether a row is its study's default. The table of methods has no default."""
    return bool(table.study) and line.arm.default


def difference(cell: Cell) -> str:
    if cell.difference is None:
        return NOTHING
    return interval(cell.difference, cell.difference_half, sign="+")


def compared(cell: Cell) -> str:
    """Return the difference to the default, `−2.10 ± 0.44, p = 0.004`; "" where there is none."""
    if cell.difference is None:
        return ""
    text = interval(cell.difference, cell.difference_half, sign="+").replace("-", "−")
    return text + ("" if cell.p is None else f", {probability(cell.p)}")


def expected(cells: Sequence[Cell]) -> list[str]:
    """Return the paper's numbers, all with as many decimals as the most precise of them."""
    known = [f"{cell.expected}" for cell in cells if cell.expected is not None]
    places = max((len(text.partition(".")[2]) for text in known), default=0)
    return [NOTHING if cell.expected is None else f"{cell.expected:.{places}f}" for cell in cells]


def _block(crossed: Crossing, table: Table, metric: str, default: str, mark: Mark) -> Block:
    """Lay out two crossed factors under one metric, with the number of seeds in the title."""
    corner = rf"{named(crossed.down)} \ {named(crossed.across)}"
    columns = [Column("", corner, [label(value) for value in crossed.down.values], key=True)]
    for value, column in zip(crossed.across.values, zip(*crossed.rows, strict=True), strict=True):
        texts = ["" if line is None else _crossed_text(line, line.cells[metric], default, mark) for line in column]
        columns.append(Column(named(crossed.across), label(value), texts))
    n = counts([line.cells[metric].n for line in table.lines])
    return Block(f"{heading(metric)} (n = {n})", columns)


def _crossed_text(line: Line, cell: Cell, default: str, mark: Mark) -> str:
    """Return the text of a cell that has no column of n beside it."""
    text = mark(cell) + (f" (n = {cell.n})" if 0 < cell.n < cell.planned else "")
    return default.format(text) if line.arm.default else text


def _metric_columns(name: str, cells: Sequence[Cell], mark: Mark) -> Iterator[Column]:
    yield Column(name, "mean", [mark(cell) for cell in cells])
    if any(cell.difference is not None for cell in cells):
        yield Column(name, "Δ", [difference(cell) for cell in cells])
    if any(cell.p is not None for cell in cells):
        yield Column(name, "p", [NOTHING if cell.p is None else shorter(cell.p) for cell in cells])
    if any(cell.expected is not None for cell in cells):
        yield Column(name, "paper", expected(cells))
