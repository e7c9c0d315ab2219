"""The runs of the store, whatever sweep they are of: what MLflow holds, beside the folders of their stages.

A run has a name that a command takes: SWEEP/STUDY/ARM:SEED, as in `flowers/mae/mask_ratio=0.9:2`, without a study
SPEC/METHOD:SEED, and `mae:0` where spec and method are called alike.
"""

import difflib
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from selfsup import evaluator, failures, outside
from selfsup.errors import CheckpointError, SpecError
from selfsup.homes import pull, size
from selfsup.mlflow_store import default_uri, sqlite_path
from selfsup.sqlite_runs import Row
from selfsup.stage import damaged, is_locked, read_json
from selfsup.sweeps.report.results import EVAL, all_rows, deleted_ids, final_metrics
from selfsup.sweeps.result import Status
from selfsup.sweeps.tags import ABOVE, ARM, KIND, STUDY, TRIAL
from selfsup.track import LABEL, REASON, SEED, Tracker

NEAREST = 3  # names in an error
STATUS: Mapping[str, Status] = {"FINISHED": "done", "FAILED": "failed", "RUNNING": "running"}
UNSENT = "its numbers are not in MLflow yet; its command sends them"
INTERRUPTED: tuple[Status, str] = ("pending", "was interrupted")
DELETED: tuple[Status, str] = ("stopped", "deleted in MLflow: `selfsup clean` removes it")


class RunRecord(NamedTuple):
    """The record of a run on the disk. stages: their keys; those that other runs share are among them."""

    id: str
    spec: str
    method: str
    seed: int
    stages: tuple[str, ...]


class StoredRun(NamedTuple):
    """A run of the store. kind: "trial" for one that a search proposed. metrics: of its evaluations, the headline ones.

    stages: their keys. began, ended: times in ISO 8601, "" where not known.
    """

    name: str
    id: str
    sweep: str
    study: str
    arm: str
    seed: int
    kind: Literal["run", "trial"]
    status: Status
    why: str
    metrics: Mapping[str, float]
    stages: tuple[str, ...]
    began: str
    ended: str

    @property
    def names(self) -> set[str]:
        """Return every spelling that it goes by: with and without sweep, study, seed, and the arm's name `default`.

        One that a plain spec made is the default arm of a sweep that the spec has become, and goes by that name, too.
        """
        arms = {self.arm, ""} if self.arm == "default" else {self.arm}
        parts = [(sweep, study, arm) for sweep in (self.sweep, "") for study in (self.study, "") for arm in arms]
        parts += [(sweep, self.arm, "default") for sweep in (self.sweep, "") if not self.study]
        names = {joined(*part) for part in parts} | {self.name.rpartition(":")[0]}
        return {self.id, *names, *(f"{name}:{self.seed}" for name in names)} - {"", f":{self.seed}"}


def records(home: Path) -> dict[str, RunRecord]:
    """Return the record of every run on the disk, by id. A damaged one has no stages."""
    runs = {}
    for path in sorted(home.glob("runs/*.json")):
        try:
            runs[path.stem] = read_record(path)
        except CheckpointError:
            runs[path.stem] = RunRecord(path.stem, "", "", 0, ())
    return runs


def read_record(path: Path) -> RunRecord:
    """Read a record that `records.remember` wrote. Raises CheckpointError where it is damaged."""
    try:
        content = read_json(path, run=dict, spec=str, stages=list)
        method = outside.short(str(content["run"]["method"]))
        return RunRecord(
            path.stem, content["spec"], method, int(content["run"]["seed"]), (*map(str, content["stages"]),)
        )
    except (KeyError, TypeError, ValueError):
        raise damaged(path) from None


def stored(home: Path) -> list[StoredRun]:
    """Return the runs of the store in use, the newest first; those too that MLflow was never told of."""
    pull(home)
    known = records(home)
    tracker = tracker_of(home)
    rows = list(recorded(tracker, home))
    unsent = known.keys() - {row["id"] for _, row in rows}
    deleted = deleted_ids(tracker) if tracker and unsent else set()
    runs = [_of_row(sweep, row, known.get(row["id"]), home) for sweep, row in rows]
    runs += [_of_record(known[key], home, deleted) for key in sorted(unsent)]
    return sorted(runs, key=lambda run: run.ended or run.began, reverse=True)


def stage_sizes(runs: Iterable[StoredRun], home: Path) -> dict[str, int]:
    """Return the bytes of the stages of runs, by key; those that runs share are counted once."""
    return {key: size(home / "stages" / key) for key in {key for run in runs for key in run.stages}}


def selected(runs: Iterable[StoredRun], patterns: Sequence[str], status: str | None = None) -> list[StoredRun]:
    """Return runs with a pattern in their name or id, all without patterns; * and ? stand for any text and letter."""
    globs = [f"*{pattern.replace('[', '[[]')}*" for pattern in patterns]  # names of arms have brackets of lists
    return [
        run
        for run in runs
        if status in (None, run.status)
        and (not globs or any(fnmatchcase(text, glob) for glob in globs for text in (run.name, run.id)))
    ]


def chosen(runs: Sequence[StoredRun], name: str) -> str:
    """Return the id of the one run that goes by a name. Raises SpecError where there is none, or more than one."""
    whole = {run.id: run for run in runs if run.name == name}
    matches = whole or {run.id: run for run in runs if name in run.names}
    if len(matches) == 1:
        return next(iter(matches))
    if matches:
        lines = [
            f"  {run.id}  {shlex.quote(run.name)}  {run.status}, {day(run.ended or run.began)}"
            for run in matches.values()
        ]
        raise SpecError("\n".join([f"{name}: {len(lines)} runs go by that name; give the id of one:", *lines]))
    near = difflib.get_close_matches(name, sorted({word for run in runs for word in run[:2]}), NEAREST, cutoff=0)
    hint = (
        f"the nearest are {', '.join(map(shlex.quote, near))}; `selfsup runs` lists all"
        if near
        else "there is none yet"
    )
    raise SpecError(f"no run {name}; {hint}")


def joined(*parts: str) -> str:
    """Join the parts of a name by slashes, without empty and repeated ones."""
    return "/".join(part for part, _ in groupby(part for part in parts if part))


def day(time: str) -> str:
    """Return the minute of a time in ISO 8601, without its zone."""
    return time[:16].replace("T", " ")


def tracker_of(home: Path) -> Tracker | None:
    """Return the MLflow in use; None where it is a local store that is not there yet. Raises TrackError."""
    tracker = Tracker(default_uri(home))
    path = sqlite_path(tracker.uri)
    return None if path and not path.exists() else tracker


def recorded(tracker: Tracker | None, home: Path) -> Iterator[tuple[str, Row]]:
    """Yield (experiment, run) for every run that MLflow holds, without those that stand for several."""
    rows = all_rows(tracker, cache=home / "cache") if tracker else ()
    yield from ((sweep, row) for sweep, row in rows if row["tags"].get(KIND) not in ABOVE)


def _of_row(sweep: str, row: Row, record: RunRecord | None, home: Path) -> StoredRun:
    tags = row["tags"]
    is_trial = tags.get(KIND) == TRIAL
    seed, study = int(tags.get(SEED, 0)), tags.get(STUDY, "")
    arm = row["id"] if is_trial else tags.get(ARM) or tags.get(LABEL, "")
    return StoredRun(
        f"{joined(sweep, study, arm)}:{seed}",
        row["id"],
        sweep,
        study,
        arm,
        seed,
        "trial" if is_trial else "run",
        *_status(row, record, home),
        headline(final_metrics(row), row["params"]),
        record.stages if record else (),
        _iso(row["started"]),
        _iso(row["ended"]),
    )


def _of_record(record: RunRecord, home: Path, deleted: Collection[str]) -> StoredRun:
    """Return a run that MLflow does not hold; its numbers are there, but not under their names."""
    name = f"{joined(record.spec, record.method)}:{record.seed}" if record.spec else record.id
    failure = failures.read(home / "runs" / f"{record.id}.failure")
    status = _unfinished(record, home) or (("failed", failure.reason) if failure else INTERRUPTED)
    status = DELETED if record.id in deleted and status[0] != "running" else status
    changed = (home / "runs" / f"{record.id}.json").stat().st_mtime
    place = name, record.id, record.spec, "", record.method, record.seed
    return StoredRun(*place, "run", *status, MappingProxyType({}), record.stages, _iso(1000 * changed), "")


def _status(row: Row, record: RunRecord | None, home: Path) -> tuple[Status, str]:
    """Return the status of a run, and why. One that MLflow believes to run may have been killed."""
    status, reason = STATUS.get(row["status"], "stopped"), row["tags"].get(REASON, "")
    if status != "done" and record and (now := _unfinished(record, home)):
        return now
    killed = (status == "running" and record) or (status == "stopped" and not reason)
    return INTERRUPTED if killed else (status, reason)


def _unfinished(record: RunRecord, home: Path) -> tuple[Status, str] | None:
    """Return the status of a run that has not ended in MLflow, but runs, or has all of its files; None for others."""
    folders = [home / "stages" / key for key in record.stages]
    if any(map(is_locked, folders)):
        return "running", ""
    return ("pending", UNSENT) if folders and all((folder / "done.json").exists() for folder in folders) else None


def headline(metrics: Mapping[str, float], params: Mapping[str, str]) -> dict[str, float]:
    """Return the metrics of a run that tables show, by name; of an evaluator from outside all but `images`."""
    shown = {}
    for name, value in sorted(metrics.items()):
        evaluation, _, metric = name.removeprefix(EVAL).rpartition("/")
        use = params.get(f"evals.{evaluation}.use", evaluation)
        known = evaluator.load(use).metrics if use in evaluator.names() else {}
        if name.startswith(EVAL) and (known[metric].headline if metric in known else not known and metric != "images"):
            shown[name] = value
    return shown


def _iso(milliseconds: float | None) -> str:
    return (
        datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(timespec="seconds") if milliseconds else ""
    )
