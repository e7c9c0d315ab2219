"""Rows of text below a heading, as aligned columns for a terminal or as mappings for a program."""

from collections.abc import Sequence

WIDE = 40  # characters of a text that moves what is right of it in its own row alone


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a line a row, every column as wide as its widest text of at most WIDE characters."""
    widths = [max((len(text) for text in column if len(text) <= WIDE), default=0) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_dicts(rows: Sequence[tuple[str, ...]]) -> list[dict[str, str]]:
    """Return a mapping for each row after the first, which has the keys."""
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
