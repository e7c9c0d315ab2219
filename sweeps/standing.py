"""Reports that stand: what was shown of a sweep, kept while neither its numbers in MLflow nor its files change.

Of local stores, whose file says so in a moment. Without it a report is made anew, which takes MLflow, SciPy and
matplotlib, and ends in the same.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from selfsup import origin, sqlite_runs, whole
from selfsup.mlflow_store import default_uri, sqlite_path
from selfsup.recall import code_digest
from selfsup.sqlite_runs import Row
from selfsup.stage import digest
from selfsup.sweeps.plans import Plan
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.tags import ABOVE, KIND, SWEEP


class ShownReport(NamedTuple):
    """A report as a command shows it. tables: text. lines: what follows them. page: its path."""

    tables: str
    lines: tuple[str, ...]
    page: str


def numbers(sweep: Sweep, home: Path) -> str:
    """Return a digest of all that the report of a sweep is made of; "" where it cannot be told."""
    return _digest(sweep, _rows(sweep, home))


def keep(sweep: Sweep, shown: ShownReport, made_of: str, home: Path) -> None:
    """Note a report that was written just now. made_of: its `numbers` before it was made."""
    if made_of:
        content = {"of": made_of, "files": _files(Path(shown.page).parent), **shown._asdict()}
        path = _note(sweep, home)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.write(path, json.dumps(content))


def standing(sweep: Sweep, home: Path) -> ShownReport | None:
    """Return the report of a sweep if it would be made the same again."""
    return _kept(sweep, _rows(sweep, home), home)


def finished(plan: Plan, home: Path) -> ShownReport | None:
    """Return the report of a sweep of which nothing is to be run, recorded or written."""
    stages = {stage.key: stage for run in plan.runs.values() for stage in run.stages}.values()
    if not all(stage.done for stage in stages):
        return None
    rows = sorted(_rows(plan.sweep, home), key=lambda row: int(row["started"]))
    status = {row["id"]: row["status"] for row in rows}
    above = [row for row in rows if _is_above(row) and row["tags"].get(SWEEP) == plan.sweep.digest]
    arms = sum(row["tags"][KIND] == "arm" for row in above)
    if arms < sum(len(study.arms) for study in plan.sweep.studies):
        return None
    if any(status.get(key) != "FINISHED" for key in (*plan.runs, *(row["id"] for row in above))):
        return None
    if any(origin.changed_defaults(stage) or origin.changes(stage) for stage in stages):
        return None
    return _kept(plan.sweep, rows, home)


def _rows(sweep: Sweep, home: Path) -> list[Row]:
    """Return the runs of a sweep's experiment; none of a server, where the file cannot be read, and of a search."""
    store = sqlite_path(default_uri(home))
    with suppress(sqlite3.Error):
        if store and not sweep.search and (experiment := sqlite_runs.experiment(store, sweep.name)):
            return sqlite_runs.changes(store, experiment.id, 0)[1]
    return []


def _is_above(row: Row) -> bool:
    """Return whether a run stands for several, and holds what a report wrote."""
    return row["tags"].get(KIND) in ABOVE


def _kept(sweep: Sweep, rows: Sequence[Row], home: Path) -> ShownReport | None:
    try:
        content = json.loads(_note(sweep, home).read_bytes())
        page = Path(content["page"])
        if not rows or content["of"] != _digest(sweep, rows) or content["files"] != _files(page.parent):
            return None
        return ShownReport(content["tables"], tuple(content["lines"]), content["page"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(sweep: Sweep, home: Path) -> Path:
    name = digest([default_uri(home), sweep.name, sweep.digest, sweep.spec, sweep.overrides])
    return home / "cache" / "reports" / f"{name}.json"


def _digest(sweep: Sweep, rows: Sequence[Row]) -> str:
    """Return a digest of a sweep's runs, and of when plans of its name were registered; "" without any run."""
    numbers = [
        [row["run"], row["started"]] if _is_above(row) else row
        for row in sorted(rows, key=lambda row: str(row["run"]))
        if row["tags"].get(KIND) != "arm"
    ]
    return digest([code_digest(), asdict(sweep), numbers], size=16) if numbers else ""


def _files(folder: Path) -> dict[str, str]:
    """-> path of each file of a report: the digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
