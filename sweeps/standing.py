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
from typing import Any, NamedTuple

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


class ShownTable(NamedTuple):
    """The table of some specs as `selfsup run` shows it. pictures: (title, path)."""

    table: str
    pictures: tuple[tuple[str, str], ...]
    features: str | None


def numbers(sweep: Sweep, home: Path) -> str:
    """Return a digest of all that the report of a sweep is made of; "" where it cannot be told."""
    return _digest(sweep, _rows(sweep, home))


def keep(sweep: Sweep, shown: ShownReport, made_of: str, home: Path) -> None:
    """Note a report that was written just now. made_of: its `numbers` before it was made."""
    if made_of:
        _write(_note(sweep, home), {"of": made_of, "files": _files(Path(shown.page).parent), **shown._asdict()})


def standing(sweep: Sweep, home: Path) -> ShownReport | None:
    """Return the report of a sweep if it would be made the same again."""
    return _kept(sweep, _rows(sweep, home), home)


def finished(plan: Plan, home: Path) -> ShownReport | None:
    """Return the report of a sweep of which nothing is to be run, recorded or written."""
    rows = sorted(_rows(plan.sweep, home), key=lambda row: int(row["started"]))
    above = [row for row in rows if _is_above(row) and row["tags"].get(SWEEP) == plan.sweep.digest]
    arms = sum(row["tags"][KIND] == "arm" for row in above)
    if arms < sum(len(study.arms) for study in plan.sweep.studies) or not _ended(plan, rows, above):
        return None
    return _kept(plan.sweep, rows, home)


def tabled(plans: Sequence[Plan], home: Path) -> ShownTable | None:
    """Return the table of specs of which nothing is to be run or recorded, and whose pictures are there."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_table_note(plans, home).read_bytes())
        rows = [_rows(plan.sweep, home) for plan in plans]
        if content["of"] == _table_digest(plans, rows) and all(map(_ended, plans, rows)):
            pictures = tuple((title, path) for title, path in content["pictures"])
            return ShownTable(content["table"], pictures, content["features"]) if _are_there(pictures) else None
    return None


def keep_table(plans: Sequence[Plan], shown: ShownTable, made_of: str, home: Path) -> None:
    """Note a table. made_of: the `table_numbers` before it was made."""
    if made_of:
        _write(_table_note(plans, home), {"of": made_of, **shown._asdict()})


def table_numbers(plans: Sequence[Plan], home: Path) -> str:
    """Return a digest of all that the table of specs is made of; "" where it cannot be told."""
    return _table_digest(plans, [_rows(plan.sweep, home) for plan in plans])


def _table_digest(plans: Sequence[Plan], rows: Sequence[Sequence[Row]]) -> str:
    digests = [_digest(plan.sweep, own) for plan, own in zip(plans, rows, strict=True)]
    return digest(digests, size=16) if all(digests) else ""


def _table_note(plans: Sequence[Plan], home: Path) -> Path:
    return home / "cache" / "reports" / f"table-{digest([_note(plan.sweep, home).name for plan in plans])}.json"


def _are_there(pictures: Sequence[tuple[str, str]]) -> bool:
    return all(Path(path).is_file() for _, path in pictures)


def _ended(plan: Plan, rows: Sequence[Row], above: Sequence[Row] = ()) -> bool:
    """Return whether all stages of a plan are done, by this code, and its runs, and some above them, have finished."""
    stages = {stage.key: stage for run in plan.runs.values() for stage in run.stages}.values()
    status = {row["id"]: row["status"] for row in sorted(rows, key=lambda row: int(row["started"]))}
    if any(status.get(key) != "FINISHED" for key in (*plan.runs, *(row["id"] for row in above))):
        return False
    return all(stage.done and not (origin.changed_defaults(stage) or origin.changes(stage)) for stage in stages)


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


def _write(path: Path, content: Any) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, json.dumps(content))


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
