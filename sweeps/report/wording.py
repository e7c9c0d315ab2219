"""The writing of names, values and numbers, in every format of a report."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfsup.sweeps.spec.study import Factor


def heading(metric: str) -> str:
    """Turn `eval/knn/top1` into `knn top-1`."""
    return re.sub(r"\btop(\d+)$", r"top-\1", metric.removeprefix("eval/").replace("/", " "))


def scored(scores: Mapping[str, float]) -> str:
    """Write numbers on one line: `knn 97.78, linear 97.22`."""
    return ", ".join(f"{heading(name).removesuffix(' top-1')} {value:.2f}" for name, value in scores.items())


def words(name: str) -> str:
    """Turn `mask_ratio` into `mask ratio`."""
    return name.replace("_", " ")


def named(factor: Factor) -> str:
    """Return name and symbol of a factor: `temperature τ`."""
    return " ".join(filter(None, [words(factor.name), factor.symbol]))


def label(value: Any) -> str:
    """Write a value for a table: `0.75`, and `100 epochs` for {epochs: 100}."""
    if isinstance(value, Mapping) and len(value) == 1:
        [(unit, number)] = value.items()
        return f"{shown(number)} {words(unit)}"
    return shown(value)


def short(value: Any) -> str:
    """Write a value as `label` does, but a number that was drawn with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else label(value)


def clipped(text: str, most: int = 26) -> str:
    """Return a name short enough for a figure: its beginning and, where names differ, its end."""
    return text if len(text) <= most else f"{text[: most // 3]}…{text[1 - most + most // 3 :]}"


def tick(value: Any) -> str:
    """Write a value as `label` does, but a switch as a tick or a cross, for a table of several factors."""
    return {True: "✓", False: "✗"}[value] if isinstance(value, bool) else label(value)


def shown(value: Any) -> str:
    """Write a value as a spec would: `0.75`, `true`, `null`, `[0.9, 0.95]`, `{steps: 100}`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return text if float(text := f"{value:g}") == value else repr(value)
        case Mapping():
            return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def interval(mean: float, half: float | None, sign: str = "", most: int = 12) -> str:
    """Write `84.93 ± 0.12`: two significant digits of the interval, and the mean to the same place.

    sign: "+" to show it.

    With a sign it is a difference, which gets more digits where rounding would change whether |mean| > half.
    """
    digits = places(half)
    while sign and half is not None and digits < most and _beyond(mean, half, digits) != (abs(mean) > half):
        digits += 1
    return f"{mean:{sign}z.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")


def places(half: float | None) -> int:
    """Return the decimals that two significant digits of an interval have; 2 where there is no interval."""
    if not half:
        return 2
    return max(0, 1 - math.floor(math.log10(float(f"{half:.1e}"))))


def _beyond(mean: float, half: float, digits: int) -> bool:
    return float(f"{abs(mean):.{digits}f}") > float(f"{half:.{digits}f}")


def probability(p: float) -> str:
    """Write `p = 0.004`, `p < 0.001`."""
    text = shorter(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def shorter(p: float) -> str:
    """Write a p: `0.004`, `0.23`, `< 0.001`; `0.0496` where 0.050 would not look like a claim."""
    if p < 0.001:
        return "< 0.001"
    digits = 3 if p < 0.1 else 2
    while p < 0.05 <= float(f"{p:.{digits}f}"):
        digits += 1
    return f"{p:.{digits}f}"


def counts(numbers: Sequence[int]) -> str:
    """Write `3`, or `2 to 3` where numbers differ."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"


def numbered(seeds: Sequence[int]) -> str:
    """Write `seed 0`, `seeds 0, 1 and 4`."""
    return f"seed{'s' * (len(seeds) > 1)} {listed(list(map(str, seeds)))}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Write `a, b and c`."""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def some(names: Sequence[str], last: str = "and", most: int = 3) -> str:
    """Write `a, b, c and 4 more`: a list with no more than `most` of the names."""
    return listed([*names[:most], f"{len(names) - most} more"] if len(names) > most else names, last)
