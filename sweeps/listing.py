"""The table of `selfsup runs`."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsup.columns import aligned
from selfsup.homes import shown
from selfsup.progress import several
from selfsup.sweeps.report.wording import heading
from selfsup.sweeps.stored import StoredRun, day, stage_sizes

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def table(runs: Sequence[StoredRun], home: Path, names: Sequence[str] = ()) -> str:
    """Return a line for each run, below a heading, and a line on them all. names: those that were asked for."""
    if not runs:
        return f"no runs under {shown(home)}{f' go by {shlex.join(names)}' if names else ''}"
    metrics = [name for name, _ in Counter(name for run in runs for name in run.metrics).most_common()]
    has_why = any(run.why for run in runs)
    head = ("run", "id", "status", *map(heading, metrics), "size", "time", *["why"] * has_why)
    sizes = stage_sizes(runs, home)
    lines = [(*_cells(run, metrics, sizes), *[run.why] * has_why) for run in runs]
    number = Counter(run.status for run in runs)
    counts = ", ".join(f"{count} {status}" for status, count in number.items())
    together = f"{several(len(runs), 'run')}: {counts}; {volume(sum(sizes.values()))} in {shown(home)}"
    return f"{aligned([head, *lines])}\n\n{together}"


def as_data(runs: Sequence[StoredRun], home: Path) -> list[dict[str, Any]]:
    """Return runs as data; bytes: of the folders of their stages, those that runs share counted for each of them."""
    sizes = stage_sizes(runs, home)
    return [run._asdict() | {"bytes": sum(sizes[key] for key in run.stages)} for run in runs]


def _cells(run: StoredRun, metrics: Sequence[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    numbers = [f"{run.metrics[name]:.2f}" if name in run.metrics else "–" for name in metrics]
    amount = volume(sum(sizes[key] for key in run.stages))
    return shlex.quote(run.name), run.id, run.status, *numbers, amount, day(run.ended or run.began)


def volume(number: float) -> str:
    """Return a number of bytes with three digits: `4.88 MiB`, `0` of none."""
    unit = 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {UNITS[unit]}" if number else "–"
