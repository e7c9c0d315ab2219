"""The two uncertainties of a difference, side by side and apart: over seeds, and over validation images."""

from collections.abc import Sequence

from selfsup.sweeps.report.bootstrap import DRAWS, Interval
from selfsup.sweeps.report.cells import NOTHING, Cell
from selfsup.sweeps.report.columns import Block, Column
from selfsup.sweeps.report.table import Table
from selfsup.sweeps.report.wording import heading, places

TITLE = "over seeds, and over images"
COVERS = (
    "Over seeds: the simultaneous 95 % interval of the tables, of what other seeds would change on these validation "
    f"images; claims rest on it. Over images: the 95 % interval of a paired bootstrap ({DRAWS:,} draws of validation "
    "images, the same for both arms), of what other images would change with these seeds; nothing is claimed from it. "
    "Neither covers the other."
)


def blocks(tables: Sequence[Table]) -> list[Block]:
    """Return a block for each table with differences whose images are known, a row per arm and metric."""
    return [Block(f"{table.title}, {TITLE}", columns) for table in tables if (columns := _columns(table))]


def _columns(table: Table) -> list[Column]:
    known = [
        (line.label, heading(metric), cell)
        for metric in table.metrics
        for line in table.lines
        if (cell := line.cells[metric]).over_images is not None
    ]
    if not known:
        return []
    labels, metrics, cells = zip(*known, strict=True)
    return [
        Column("", table.title, list(labels), key=True),
        Column("", "metric", list(metrics), key=True),
        Column("", "Δ", [f"{cell.difference:+.{_digits(cell)}f}" for cell in cells]),
        Column("", "over seeds", [_ends(cell, _over_seeds(cell)) for cell in cells]),
        Column("", "over images", [_ends(cell, cell.over_images) for cell in cells]),
    ]


def _over_seeds(cell: Cell) -> Interval | None:
    if cell.difference is None or cell.difference_half is None:
        return None
    return cell.difference - cell.difference_half, cell.difference + cell.difference_half


def _ends(cell: Cell, ends: Interval | None) -> str:
    """Write `+0.3 to +4.1`."""
    return NOTHING if ends is None else " to ".join(f"{end:+.{_digits(cell)}f}" for end in ends)


def _digits(cell: Cell) -> int:
    assert cell.over_images
    return places((cell.over_images[1] - cell.over_images[0]) / 2)
