"""The runs of a local MLflow store, read from its file: MLflow takes seconds to import, and to list some thousands.

Read alone: MLflow writes. Its tables of runs, parameters, tags and metrics have been the same for years; where they are
not, sqlite3.Error is raised, and MLflow is to be asked instead.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.metric_names import former_name

Row = dict[str, Any]  # a run: id (ours), run (MLflow's), started, ended, status, metrics, params, tags
ID = "selfsup.id"
CHANGED = "experiment_id = ? AND lifecycle_stage = 'active' AND (status <> 'FINISHED' OR end_time >= ?)"
POINTS = "SELECT run_uuid, step, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics WHERE key IN (?, ?)"
ORDER = "ORDER BY timestamp, key = ?, step, value"  # MLflow's, with a name of today after a former one
ASKED = 500  # runs of one query
TABLES = {  # columns of a run's mappings; the latest value of a metric
    "metrics": "SELECT run_uuid, key, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics",
    "params": "SELECT run_uuid, key, value FROM params",
    "tags": "SELECT run_uuid, key, value FROM tags",
}


class ExperimentKey(NamedTuple):
    """An experiment, by MLflow's id. created: when, in milliseconds since 1970."""

    id: str
    created: int


@contextlib.contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    with contextlib.closing(connection):
        yield connection


def experiment(store: Path, name: str) -> ExperimentKey | None:
    """Return the experiment of a name; None where there is none, which a store that is not there has not either."""
    with _opened(store) as opened:
        experiments = opened.execute("SELECT experiment_id, creation_time FROM experiments WHERE name = ?", [name])
        return next((ExperimentKey(str(key), created) for key, created in experiments), None)


def experiments(store: Path) -> dict[str, ExperimentKey]:
    """-> name: key of each experiment that was not deleted."""
    with _opened(store) as opened:
        query = "SELECT name, experiment_id, creation_time FROM experiments WHERE lifecycle_stage = 'active'"
        return {name: ExperimentKey(str(key), created) for name, key, created in opened.execute(query)}


def deleted_ids(store: Path) -> set[str]:
    """Return our ids of runs that were deleted, alone or with their experiment."""
    with _opened(store) as opened:
        deleted = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted'"
        query = f"SELECT value FROM tags WHERE key = ? AND run_uuid IN ({deleted})"
        return {key for (key,) in opened.execute(query, [ID])}


def curves(store: Path, name: str, runs: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """-> run: (step, value) of a metric, under its names, by step; the newer value of a step recorded twice.

    runs: MLflow's ids. Those without the metric are left out.
    """
    newest: dict[str, dict[int, float]] = {}
    with _opened(store) as opened:
        for start in range(0, len(runs), ASKED):
            asked = runs[start : start + ASKED]
            query = f"{POINTS} AND run_uuid IN ({', '.join('?' * len(asked))}) {ORDER}"
            for run, step, value in opened.execute(query, [former_name(name), name, *asked, name]):
                newest.setdefault(run, {})[step] = math.nan if value is None else value
    return {run: sorted(points.items()) for run, points in newest.items()}


def changes(store: Path, experiment: str, since: int) -> tuple[set[str], list[Row]]:
    """-> MLflow's ids of deleted runs, and the runs that have not finished, or that ended since. All in one reading.

    experiment: MLflow's id. since: milliseconds since 1970.
    """
    with _opened(store) as opened:
        opened.execute("BEGIN")
        where = [int(experiment), since]
        deleted = opened.execute(
            "SELECT run_uuid FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'deleted'", where[:1]
        )
        gone = {run for (run,) in deleted}
        query = f"SELECT run_uuid, start_time, end_time, status FROM runs WHERE {CHANGED}"
        rows: dict[str, Row] = {
            run: {"id": None, "run": run, "started": started, "ended": ended, "status": status}
            | {name: {} for name in TABLES}
            for run, started, ended, status in opened.execute(query, where)
        }
        for name, table in TABLES.items():
            query = f"{table} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE {CHANGED})"
            for run, key, value in opened.execute(query, where):
                rows[run][name][key] = math.nan if value is None else value
    for row in rows.values():
        row["id"] = row["tags"].get(ID)
        row["tags"] = {name: value for name, value in row["tags"].items() if not name.startswith("mlflow.")}
    return gone, list(rows.values())
