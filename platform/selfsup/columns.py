"""Rows of text below a heading, as aligned columns for a terminal or as mappings for a program."""

from collections.abc import Sequence


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a line a row, every column as wide as its widest text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_dicts(rows: Sequence[tuple[str, ...]]) -> list[dict[str, str]]:
    """Return a mapping for each row after the first, which has the keys."""
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
