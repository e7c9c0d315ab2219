"""The table of `selfsup runs`."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from selfsup.columns import aligned
from selfsup.progress import several
from selfsup.sweeps.report.wording import heading
from selfsup.sweeps.stored import StoredRun, day, records, size

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def table(runs: Sequence[StoredRun], home: Path, names: Sequence[str] = ()) -> str:
    """Return a line for each run, below a heading, and a line on them all. names: those that were asked for."""
    if not runs:
        return f"no runs under {home}{f' go by {shlex.join(names)}' if names else ''}"
    metrics = [name for name, _ in Counter(name for run in runs for name in run.metrics).most_common()]
    has_why = any(run.why for run in runs)
    head = ("run", "id", "status", *map(heading, metrics), "size", "time", *["why"] * has_why)
    lines = [(*_cells(run, metrics), *[run.why] * has_why) for run in runs]
    return f"{aligned([head, *lines])}\n\n{_together(runs, home)}"


def _cells(run: StoredRun, metrics: Sequence[str]) -> tuple[str, ...]:
    numbers = [f"{run.metrics[name]:.2f}" if name in run.metrics else "–" for name in metrics]
    return shlex.quote(run.name), run.id, run.status, *numbers, volume(run.bytes), day(run.ended or run.began)


def _together(runs: Sequence[StoredRun], home: Path) -> str:
    """Return the number of runs by status, and the size of their folders, those that they share counted once."""
    number = Counter(run.status for run in runs)
    known = records(home)
    keys = {key for run in runs if run.id in known for key in known[run.id].stages}
    amount = volume(sum(size(home / "stages" / key) for key in keys))
    counts = ", ".join(f"{count} {status}" for status, count in number.items())
    return f"{several(len(runs), 'run')}: {counts}; {amount} in {home}"


def volume(number: float) -> str:
    """Return a number of bytes with three digits: `4.88 MiB`, `0` of none."""
    unit = 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {UNITS[unit]}" if number else "–"
