"""How names, values and numbers are written, in every format of a report."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfsup.reporting.stats import places


def heading(metric: str) -> str:
    """`eval/knn/top1` -> `knn top-1`"""
    return re.sub(r"\btop(\d+)$", r"top-\1", metric.removeprefix("eval/").replace("/", " "))


def words(name: str) -> str:
    """`mask_ratio` -> `mask ratio`"""
    return name.replace("_", " ")


def shown(value: Any) -> str:
    """A value as a spec would have it: `0.75`, `true`, `null`, `[0.9, 0.95]`, `{steps: 100}`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return short if float(short := f"{value:g}") == value else repr(value)
        case Mapping():
            return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def interval(mean: float, half: float | None, sign: str = "") -> str:
    """`84.93 ± 0.12`: two significant digits of the interval, and the mean to the same place. sign: "+" to show it."""
    digits = places(half)
    return f"{mean:{sign}.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")


def probability(p: float) -> str:
    """`p = 0.004`, `p < 0.001`"""
    text = shorter(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def shorter(p: float) -> str:
    """`0.004`, `0.23`, `< 0.001`"""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def counts(numbers: Sequence[int]) -> str:
    """`3`, or `2 to 3` where they differ."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a, b and c`"""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
