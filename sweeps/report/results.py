"""The runs of a sweep as MLflow holds them.

MLflow cannot list cheaply what changed, and reading ten thousand runs takes half a minute: so finished runs are cached
in a file, and later only those are read that have not finished, or ended since.
"""

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from selfsup import sqlite_runs
from selfsup.errors import SpecError
from selfsup.hits import NAME, HitRecord, read
from selfsup.metric_names import current_metrics
from selfsup.mlflow_store import sqlite_path
from selfsup.redact import redacted
from selfsup.sqlite_runs import ExperimentKey, Row
from selfsup.sweeps.result import Curve, Result, Status
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.trials import Trial
from selfsup.sweeps.tags import DRAWN, KIND, SESSIONS, SPENT, STUDY, SWEEP, TRIAL
from selfsup.track import ID, REASON, SEED, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

STATUS: Mapping[str, Status] = {
    "SCHEDULED": "pending",
    "RUNNING": "running",
    "FINISHED": "done",
    "FAILED": "failed",
    "KILLED": "stopped",
}
TABLES = (
    "runs (run TEXT PRIMARY KEY, held TEXT)",
    "curves (run TEXT, name TEXT, ended INTEGER, points TEXT, PRIMARY KEY (run, name))",
    "images (run TEXT, stage TEXT, ended INTEGER, content BLOB, PRIMARY KEY (run, stage))",
)
EVAL = "eval/"  # what the names of evaluations' numbers begin with
EVERY = "evals.every."  # what the parameters of a run begin with that is evaluated while it trains
SKEW = 60_000  # milliseconds by which the clocks of machines that finish runs may differ


class SearchRecord(NamedTuple):
    """A search as MLflow holds it: its trials, in the order in which they began, and the number of its sessions.

    spent: the budget that it ended with, "" while it continues.
    """

    trials: tuple[Trial, ...]
    spent: str
    sessions: int


def gather(tracker: Tracker, sweep: Sweep, *, curves: Sequence[str] = (), cache: Path | None = None) -> list[Result]:
    """Return a Result per planned run, arm by arm, from the experiment named after the sweep. Raises TrackError.

    curves: names of metrics whose history is read too. cache: a folder that makes the next call fast. The file in it is
    a copy of what MLflow holds, and may be removed at any time.
    """
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    planned = {id: seed for arm in arms for seed, id in arm.ids.items()}  # noqa: A001
    with _open_cache(tracker, _experiment(tracker, sweep.name), cache) as cached:
        rows = _current(tracker, sweep.name, cached)
        started = [rows[id] for id in planned if id in rows]  # noqa: A001
        curves_by_name = {name: _curves(tracker, name, started, cached) for name in curves}
        hits = {name: _image_hits(tracker, name, started, cached) for name in sweep.metrics if name.startswith(EVAL)}
    return [_result(id, seed, rows.get(id), curves_by_name, hits) for id, seed in planned.items()]  # noqa: A001


def search_record(tracker: Tracker, sweep: Sweep, *, cache: Path | None = None) -> SearchRecord:
    """Read the record of a search. cache: as for `gather`. Raises TrackError."""
    with _open_cache(tracker, _experiment(tracker, sweep.name), cache) as cached:
        rows = _current(tracker, sweep.name, cached).values()
    own = [row for row in rows if row["tags"].get(SWEEP) == sweep.digest]
    trials = sorted((row for row in own if row["tags"].get(KIND) == TRIAL), key=lambda row: (row["started"], row["id"]))
    tags: dict[str, str] = next((row["tags"] for row in own if row["tags"].get(KIND) == "search"), {})
    numbered = tuple(_trial(number, row) for number, row in enumerate(trials, start=1))
    return SearchRecord(numbered, tags.get(SPENT, ""), int(tags.get(SESSIONS, 1)))


def _trial(number: int, row: Row) -> Trial:
    tags = row["tags"]
    return Trial(number, tags[STUDY], json.loads(tags[DRAWN]), _result(row["id"], int(tags[SEED]), row, {}))


def all_rows(tracker: Tracker, *, cache: Path | None = None) -> Iterator[tuple[str, Row]]:
    """Yield (experiment, row) for every run, those of arms and sweeps among them. cache: as for `gather`."""
    for experiment, key in _experiments(tracker).items():
        with _open_cache(tracker, key, cache) as cached:
            rows = _current(tracker, experiment, cached).values()
        yield from ((experiment, row) for row in rows)


def deleted_ids(tracker: Tracker) -> set[str]:
    """Return our ids of runs that were deleted in MLflow, alone or with their experiment."""
    if store := sqlite_path(tracker.uri):
        with contextlib.suppress(sqlite3.Error):
            return sqlite_runs.deleted_ids(store)
    return {run.data.tags[ID] for run in tracker.search_runs(deleted=True)}


def _experiments(tracker: Tracker) -> dict[str, ExperimentKey]:
    """-> name: key of each experiment: of a local store from its file, as all that follows."""
    if store := sqlite_path(tracker.uri):
        with contextlib.suppress(sqlite3.Error):
            return sqlite_runs.experiments(store)
    return {one.name: ExperimentKey(one.experiment_id, one.creation_time or 0) for one in tracker.experiments()}


def _experiment(tracker: Tracker, name: str) -> ExperimentKey | None:
    if store := sqlite_path(tracker.uri):
        with contextlib.suppress(sqlite3.Error):
            return sqlite_runs.experiment(store, name)
    known = tracker.experiment(name)
    return ExperimentKey(known.experiment_id, known.creation_time or 0) if known else None


def find(tracker: Tracker, ids: Sequence[str]) -> list[Result]:
    """Return the runs with these ids, from any experiment. Raises SpecError for an id that MLflow does not hold."""
    return [_found(tracker, id) for id in ids]  # noqa: A001


def _found(tracker: Tracker, id: str) -> Result:  # noqa: A002
    runs = tracker.search_runs(f"tags.`{ID}` = '{id}'") if re.fullmatch(r"[\w-]+", id) else []  # no quotes of ids
    if not runs:
        raise SpecError(f"no run {id!r} in MLflow at {redacted(tracker.uri)}; `selfsup status SWEEP --json` tells ids")
    return _result(id, int(runs[-1].data.tags.get(SEED, 0)), _row(runs[-1]), {})


def _result(
    id: str,  # noqa: A002
    seed: int,
    row: Row | None,
    curves: Mapping[str, Mapping[str, Curve]],
    hits: Mapping[str, Mapping[str, HitRecord]] = MappingProxyType({}),
) -> Result:
    if row is None:
        return Result(id, seed, None, "pending", "", {}, {}, {}, {})
    status, reason = STATUS[row["status"]], row["tags"].get(REASON, "")
    interrupted = status == "stopped" and not reason  # nobody decided it: the same command continues it
    return Result(
        id=id,
        seed=seed,
        run=row["run"],
        status="pending" if interrupted else status,
        reason=reason,
        metrics=final_metrics(row),
        params=row["params"],
        tags=row["tags"],
        curves={name: by_run[row["run"]] for name, by_run in curves.items() if row["run"] in by_run},
        seen={name: by_run[row["run"]] for name, by_run in hits.items() if row["run"] in by_run},
    )


def final_metrics(row: Row) -> dict[str, float]:
    """Return the metrics of a run, without those of evaluations on the way while it is not done."""
    on_the_way = row["status"] != "FINISHED" and _has_curves(row)
    metrics = current_metrics(row["metrics"])
    return {name: value for name, value in metrics.items() if not (on_the_way and name.startswith(EVAL))}


def _has_curves(row: Row) -> bool:
    """Return whether a run is evaluated while it trains."""
    return any(name.startswith(EVERY) for name in row["params"])


def _current(tracker: Tracker, experiment: str, cache: sqlite3.Connection) -> dict[str, Row]:
    """-> our id: its newest run. Reads the cache, and from MLflow what may have changed since."""
    known = {run: json.loads(row) for run, row in cache.execute("SELECT run, held FROM runs")}
    since = max(0, max((row["ended"] for row in known.values()), default=0) - SKEW)
    deleted, changed = _changes(tracker, experiment, since)
    known = {run: row for run, row in known.items() if run not in deleted} | {row["run"]: row for row in changed}
    ended = [(row["run"], json.dumps(row)) for row in changed if row["status"] == "FINISHED"]
    cache.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?)", ended)
    cache.commit()
    return {row["id"]: row for row in sorted(known.values(), key=lambda row: row["started"]) if row["id"]}


def _changes(tracker: Tracker, experiment: str, since: int) -> tuple[set[str], list[Row]]:
    """-> MLflow's ids of deleted runs, and the runs that have not finished, or that ended since."""
    if store := sqlite_path(tracker.uri):
        with contextlib.suppress(sqlite3.Error):
            key = sqlite_runs.experiment(store, experiment)
            return sqlite_runs.changes(store, key.id, since) if key else (set(), [])
    deleted = {run.info.run_id for run in tracker.runs(experiment, deleted=True)} if since else set()
    unfinished = tracker.runs(experiment, "attributes.status != 'FINISHED'")
    ended = tracker.runs(experiment, f"attributes.status = 'FINISHED' AND attributes.end_time >= {since}")
    return deleted, [_row(run) for run in (*unfinished, *ended)]


def _row(run: "Run") -> Row:
    return {
        "id": run.data.tags.get(ID),
        "run": run.info.run_id,
        "started": run.info.start_time,
        "ended": run.info.end_time,
        "status": run.info.status,
        "metrics": run.data.metrics,
        "params": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
    }


def _curves(tracker: Tracker, name: str, runs: Sequence[Row], cache: sqlite3.Connection) -> dict[str, Curve]:
    """-> MLflow's id: the curve of a run that has one. It is cached until the run ends anew."""
    stored = cache.execute("SELECT run, ended, points FROM curves WHERE name = ?", [name])
    known = {(run, ended): [(step, value) for step, value in json.loads(points)] for run, ended, points in stored}
    rows = [row for row in runs if name in current_metrics(row["metrics"])]
    rows = [row for row in rows if not name.startswith(EVAL) or _has_curves(row)]
    ended = {row["run"]: row["ended"] for row in rows if row["status"] == "FINISHED"}
    kept = {run: known[run, end] for run, end in ended.items() if (run, end) in known}
    read = _histories(tracker, name, [row["run"] for row in rows if row["run"] not in kept])
    new = [(run, name, ended[run], json.dumps(points)) for run, points in read.items() if run in ended]
    cache.executemany("INSERT OR REPLACE INTO curves VALUES (?, ?, ?, ?)", new)
    cache.commit()
    return kept | read


def _histories(tracker: Tracker, name: str, runs: Sequence[str]) -> dict[str, Curve]:
    """-> MLflow's id: the curve of a run."""
    if store := sqlite_path(tracker.uri):
        with contextlib.suppress(sqlite3.Error):
            return dict(sqlite_runs.curves(store, name, runs))
    return {run: tracker.history(run, name) for run in runs}


def _image_hits(tracker: Tracker, metric: str, runs: Sequence[Row], cache: sqlite3.Connection) -> dict[str, HitRecord]:
    """-> MLflow's id: which images a finished run had right, where its evaluation recorded it.

    Cached until it ends anew.
    """
    stage = metric.removeprefix(EVAL).rpartition("/")[0]
    stored = cache.execute("SELECT run, ended, content FROM images WHERE stage = ?", [stage])
    known = {(run, ended): content for run, ended, content in stored}
    hits_by_run, new = {}, []
    for row in runs:
        if row["status"] != "FINISHED" or f"{EVAL}{stage}/images" not in row["metrics"]:
            continue
        key = row["run"], row["ended"]
        if (content := known.get(key)) is None:
            content = tracker.fetch(row["run"], f"{stage}/{NAME}") or b""
            new.append((row["run"], stage, row["ended"], content))
        if hits := read(content):
            hits_by_run[row["run"]] = hits
    cache.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", new)
    cache.commit()
    return hits_by_run


@contextlib.contextmanager
def _open_cache(
    tracker: Tracker, experiment: ExperimentKey | None, folder: Path | None
) -> Iterator[sqlite3.Connection]:
    """Open the cache of an experiment, in memory without one or without a folder.

    Its name tells apart experiments of one name in different stores, or created anew.
    """
    if folder is None or experiment is None:
        path = ":memory:"
    else:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{tracker.uri} {experiment.id} {experiment.created}"
        path = str(folder / f"results-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.db")
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        yield connection
