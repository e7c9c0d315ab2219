"""The legend below tables: the meaning of the marks that occur in them, and of no others."""

from collections.abc import Sequence
from typing import NamedTuple

from selfsup.sweeps.report.columns import is_default
from selfsup.sweeps.report.table import Table


class Marks(NamedTuple):
    """The marks that occur in tables.

    default: a row that others are compared with; difference, half, p: to a default or an untrained encoder, half the
    width of the difference's interval among them. best, behind, tied: as in `Cell`; ahead: of a best mean that is
    better than all baselines.
    """

    default: bool
    difference: bool
    half: bool
    p: bool
    best: bool
    behind: bool
    ahead: bool
    tied: bool


def marks(tables: Sequence[Table]) -> Marks:
    """Return which marks occur in any of these tables."""
    cells = [cell for table in tables for line in table.lines for cell in line.cells.values()]
    return Marks(
        default=any(is_default(table, line) for table in tables for line in table.lines),
        difference=any(cell.difference is not None for cell in cells),
        half=any(cell.difference_half is not None for cell in cells),
        p=any(cell.p is not None for cell in cells),
        best=any(cell.best for cell in cells),
        behind=any(cell.behind for cell in cells),
        ahead=any(cell.best and not cell.behind for cell in cells),
        tied=any(cell.tied and not cell.best for cell in cells),
    )


def console_legend(tables: Sequence[Table]) -> str:
    """Write the legend of a terminal's tables on one line; "" where nothing is marked."""
    seen = marks(tables)
    of_studies, of_methods = (marks([table for table in tables if bool(table.study) is own]) for own in (True, False))
    targets = ["to the default"] * of_studies.difference
    targets += [f"{'of methods ' * of_studies.difference}to the random encoder"] * of_methods.difference
    parts = {
        "‡ best mean, but no better than a baseline": seen.behind,
        "* best mean": seen.ahead,
        "† not shown to be worse than the best": seen.tied,
        f"Δ {', '.join(targets)}": seen.difference,
        "p adjusted for all arms": seen.p,
        "[default]": seen.default,
    }
    return "   ".join(text for text, occurs in parts.items() if occurs)


def paper_legend(tables: Sequence[Table]) -> str:
    """Write the legend of LaTeX tables as a sentence; "" where nothing is marked."""
    seen = marks(tables)
    parts = {
        "Bold: the best mean": seen.best,
        "†: not shown to be worse than the best (Hsu)": seen.tied,
        "‡: the best mean, but no better than a baseline": seen.behind,
    }
    text = "; ".join(text for text, occurs in parts.items() if occurs)
    return f"{text}." if text else ""
