"""What MLflow holds of the runs of a sweep.

MLflow has no cheap list of what changed, and ten thousand runs take it half a minute: so finished runs are kept in a
file, and from then on only those are read that are not finished, or ended since.
"""

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from selfsup.errors import SpecError
from selfsup.hits import NAME, Seen, read
from selfsup.redact import redacted
from selfsup.sweeps.result import Curve, Result, Status
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.trials import Trial
from selfsup.sweeps.tags import DRAWN, KIND, STUDY, SWEEP
from selfsup.track import ID, REASON, SEED, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

STATUS: Mapping[str, Status] = {
    "SCHEDULED": "planned",
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "stopped",
}
TABLES = (
    "runs (run TEXT PRIMARY KEY, held TEXT)",
    "curves (run TEXT, name TEXT, ended INTEGER, points TEXT, PRIMARY KEY (run, name))",
    "images (run TEXT, stage TEXT, ended INTEGER, content BLOB, PRIMARY KEY (run, stage))",
)
Held = dict[str, Any]  # what is kept of a run, see _plain
EVAL = "eval/"  # what the names of evaluations' numbers begin with
SKEW = 60_000  # milliseconds by which the clocks of machines that finish runs may differ


def gather(tracker: Tracker, sweep: Sweep, *, curves: Sequence[str] = (), cache: Path | None = None) -> list[Result]:
    """One Result a planned run, arm by arm, from the experiment named after the sweep. Raises TrackError.

    curves: names of metrics whose history is read too. cache: a folder that makes the next call fast. The file in it
    is a copy of what MLflow says, and may be removed at any time.
    """
    arms = (*sweep.baselines, *(arm for study in sweep.studies for arm in study.arms))
    planned = {id: seed for arm in arms for seed, id in arm.ids.items()}  # noqa: A001
    with _opened(tracker, sweep.name, cache) as kept:
        held = _current(tracker, sweep.name, kept)
        started = [held[id] for id in planned if id in held]  # noqa: A001
        drawn = {name: _curves(tracker, name, started, kept) for name in curves}
        seen = {name: _seen(tracker, name, started, kept) for name in sweep.metrics if name.startswith(EVAL)}
    return [_result(id, seed, held.get(id), drawn, seen) for id, seed in planned.items()]  # noqa: A001


def trials(tracker: Tracker, sweep: Sweep, *, cache: Path | None = None) -> tuple[Trial, ...]:
    """Those of a search, in the order in which they began. cache: as for `gather`. Raises TrackError."""
    with _opened(tracker, sweep.name, cache) as kept:
        held = _current(tracker, sweep.name, kept).values()
    own = [each for each in held if each["tags"].get(SWEEP) == sweep.digest and each["tags"].get(KIND) == "trial"]
    own.sort(key=lambda each: (each["started"], each["id"]))
    return tuple(_trial(number, each) for number, each in enumerate(own, start=1))


def _trial(number: int, held: Held) -> Trial:
    tags = held["tags"]
    return Trial(number, tags[STUDY], json.loads(tags[DRAWN]), _result(held["id"], int(tags[SEED]), held, {}))


def find(tracker: Tracker, ids: Sequence[str]) -> list[Result]:
    """The runs with these ids of ours, whatever their experiment. Raises SpecError for one that is not there."""
    return [_found(tracker, id) for id in ids]  # noqa: A001


def _found(tracker: Tracker, id: str) -> Result:  # noqa: A002
    runs = tracker.everywhere(f"tags.`{ID}` = '{id}'") if re.fullmatch(r"[\w-]+", id) else []  # no quotes of ids
    if not runs:
        raise SpecError(f"no run {id!r} in MLflow at {redacted(tracker.uri)}; `selfsup status SWEEP --json` tells ids")
    return _result(id, int(runs[-1].data.tags.get(SEED, 0)), _plain(runs[-1]), {})


def _result(
    id: str,  # noqa: A002
    seed: int,
    held: Held | None,
    drawn: Mapping[str, Mapping[str, Curve]],
    seen: Mapping[str, Mapping[str, Seen]] = MappingProxyType({}),
) -> Result:
    if held is None:
        return Result(id, seed, None, "planned", "", {}, {}, {}, {})
    status, reason = STATUS[held["status"]], held["tags"].get(REASON, "")
    interrupted = status == "stopped" and not reason  # nobody decided it: the same command continues it
    return Result(
        id=id,
        seed=seed,
        run=held["run"],
        status="planned" if interrupted else status,
        reason=reason,
        metrics=held["metrics"],
        params=held["params"],
        tags=held["tags"],
        curves={name: found[held["run"]] for name, found in drawn.items() if held["run"] in found},
        seen={name: found[held["run"]] for name, found in seen.items() if held["run"] in found},
    )


def _current(tracker: Tracker, experiment: str, kept: sqlite3.Connection) -> dict[str, Held]:
    """Our id -> the newest run of it: what is kept, and what may have changed since."""
    known = {run: json.loads(held) for run, held in kept.execute("SELECT run, held FROM runs")}
    since = max(0, max((held["ended"] for held in known.values()), default=0) - SKEW)
    for run in tracker.runs(experiment, deleted=True) if known else ():
        known.pop(run.info.run_id, None)
    going = tracker.runs(experiment, "attributes.status != 'FINISHED'")
    ended = tracker.runs(experiment, f"attributes.status = 'FINISHED' AND attributes.end_time >= {since}")
    known |= {run.info.run_id: _plain(run) for run in (*going, *ended)}
    kept.executemany(
        "INSERT OR REPLACE INTO runs VALUES (?, ?)",
        [(run.info.run_id, json.dumps(known[run.info.run_id])) for run in ended],
    )
    kept.commit()
    return {held["id"]: held for held in sorted(known.values(), key=lambda held: held["started"]) if held["id"]}


def _plain(run: "Run") -> Held:
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


def _curves(tracker: Tracker, name: str, runs: Sequence[Held], kept: sqlite3.Connection) -> dict[str, Curve]:
    """MLflow's id -> the curve of a run that has one. It is kept until the run ends anew."""
    stored = kept.execute("SELECT run, ended, points FROM curves WHERE name = ?", [name])
    known = {(run, ended): [(step, value) for step, value in json.loads(points)] for run, ended, points in stored}
    having = [held for held in runs if name in held["metrics"]]
    found: dict[str, Curve] = {}
    new = []
    for held in having:
        key, finished = (held["run"], held["ended"]), held["status"] == "FINISHED"
        if finished and key in known:
            found[held["run"]] = known[key]
            continue
        found[held["run"]] = points = tracker.history(held["run"], name)
        new += [(held["run"], name, held["ended"], json.dumps(points))] if finished else []
    kept.executemany("INSERT OR REPLACE INTO curves VALUES (?, ?, ?, ?)", new)
    kept.commit()
    return found


def _seen(tracker: Tracker, metric: str, runs: Sequence[Held], kept: sqlite3.Connection) -> dict[str, Seen]:
    """MLflow's id -> the images of a finished run whose evaluation told them. They are kept until it ends anew."""
    stage = metric.removeprefix(EVAL).rpartition("/")[0]
    stored = kept.execute("SELECT run, ended, content FROM images WHERE stage = ?", [stage])
    known = {(run, ended): content for run, ended, content in stored}
    found, new = {}, []
    for held in runs:
        if held["status"] != "FINISHED" or f"{EVAL}{stage}/images" not in held["metrics"]:
            continue
        key = held["run"], held["ended"]
        if (content := known.get(key)) is None:
            content = tracker.fetch(held["run"], f"{stage}/{NAME}") or b""
            new.append((held["run"], stage, held["ended"], content))
        if seen := read(content):
            found[held["run"]] = seen
    kept.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", new)
    kept.commit()
    return found


@contextlib.contextmanager
def _opened(tracker: Tracker, experiment: str, folder: Path | None) -> Iterator[sqlite3.Connection]:
    """The file of an experiment, told from one of the same name in another store, or made again; in memory for None."""
    found = tracker.experiment(experiment)
    if folder is None or found is None:
        path = ":memory:"
    else:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{tracker.uri} {found.experiment_id} {found.creation_time}"
        path = str(folder / f"results-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.db")
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as kept, kept:
        for table in TABLES:
            kept.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        yield kept
