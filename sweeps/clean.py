"""Removal of files that nothing needs, or of runs that are named, while other processes may run.

A stage stays while its lock is held, and while the record of another run names it, which is read anew once its own lock
is held: a run writes its record before it looks for its stages. Numbers stay in MLflow.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from selfsup import scratch, stage
from selfsup.columns import aligned
from selfsup.homes import forget, pull, size
from selfsup.mirror_index import size_of
from selfsup.progress import several
from selfsup.stage import is_locked
from selfsup.sweeps.listing import volume
from selfsup.sweeps.report.results import deleted_ids
from selfsup.sweeps.stored import UNSENT, RunRecord, StoredRun, read_record, recorded
from selfsup.track import Tracker

Records = Mapping[str, RunRecord]


class Removal(NamedTuple):
    """A folder to be removed: of a stage, or of a process that ended. why: nothing needs it."""

    path: Path
    why: str
    bytes: int


class Cleaning(NamedTuple):
    """A plan of what is to be removed. runs: ids, whose records go first. remarks: what stays, and why."""

    runs: tuple[str, ...]
    removals: tuple[Removal, ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        number = Counter((_kind(removal.path), removal.why) for removal in self.removals)
        lines = []
        for (kind, why), count in number.items():
            amount = sum(
                removal.bytes for removal in self.removals if (_kind(removal.path), removal.why) == (kind, why)
            )
            lines.append((f"  {kind}", f"{count:,}", volume(amount), why))
        total = volume(sum(removal.bytes for removal in self.removals))
        head = f"to be removed: {several(len(self.removals), 'folder')}, {total}" if lines else "nothing to be removed"
        return "\n".join([head, *([aligned(lines)] if lines else []), *self.remarks])


def of_runs(home: Path, runs: Iterable[StoredRun]) -> Cleaning:
    """Plan to remove the files of these runs that no other run needs. Raises CheckpointError for a damaged record."""
    known = _records(home)
    there = {run.id: run.why for run in runs if run.id in known}
    busy = {key for key in there if _runs_now(home, known[key])}
    unsent = {key for key, why in there.items() if why == UNSENT}
    gone = there.keys() - busy - unsent
    names, needed = _stages(known, gone), _stages(known, known.keys() - gone)
    remarks = [f"{key} runs now, and stays" for key in sorted(busy)]
    remarks += [f"{key} stays: {UNSENT}" for key in sorted(unsent)]
    if shared := names & needed:
        remarks.append(f"{several(len(shared), 'stage')} of theirs, which other runs share, will stay")
    return Cleaning((*sorted(gone),), (*_removals(home, names - needed, "of these runs alone"),), (*remarks,))


def unneeded(home: Path, tracker: Tracker | None) -> Cleaning:
    """Plan to remove what nothing needs: stages of no run, runs deleted in MLflow, folders of processes that ended.

    Finished stages of no record stay while MLflow has runs whose record is not here, since they may be of these. Raises
    CheckpointError for a damaged record.
    """
    known, active = _records(home), {row["id"] for _, row in recorded(tracker, home)}
    deleted = (deleted_ids(tracker) - active) & known.keys() if tracker else set()
    gone = {key for key in deleted if not _runs_now(home, known[key])}
    names, needed = _stages(known, gone), _stages(known, known.keys() - gone)
    orphans = {path.name for path in home.glob("stages/*")} - needed - names
    finished = {name for name in orphans if (home / "stages" / name / "done.json").exists()}
    kept = finished if active - known.keys() else set()
    removals = [
        *_removals(home, names - needed, "of runs deleted in MLflow"),
        *_removals(home, orphans - kept, "of no run"),
        *(Removal(path, "left by a process that ended", size_of(path)) for path in scratch.abandoned(home / "tune")),
    ]
    remark = (
        f"{several(len(kept), 'finished stage')} of no record will stay: MLflow has runs whose records are not here"
    )
    return Cleaning((*sorted(gone),), (*removals,), (remark,) if kept else ())


def carry_out(home: Path, cleaning: Cleaning) -> list[Removal]:
    """Remove what was planned; return what stays, since a process has begun to use it meanwhile."""
    for key in cleaning.runs:
        for suffix in (".json", ".failure"):
            forget(path := home / "runs" / f"{key}{suffix}")
            path.unlink(missing_ok=True)
    return [removal for removal in cleaning.removals if not _remove(home, removal.path)]


def _remove(home: Path, path: Path) -> bool:
    """Remove a folder; return whether it is gone."""
    if path.parent.name == "stages":
        return stage.remove(path, unless=lambda: path.name in _stages(records := _records(home), records))
    scratch.sweep(path.parent, path.name)
    return not path.exists()


def _removals(home: Path, names: Iterable[str], why: str) -> Iterator[Removal]:
    """Yield the stages of these names that are there, and not in use."""
    for name in sorted(names):
        folder = home / "stages" / name
        if folder.exists() and not is_locked(folder):
            yield Removal(folder, why, size(folder))


def _records(home: Path) -> Records:
    """Return the records of all runs. Raises CheckpointError for a damaged one, which may name any stage."""
    pull(home, fresh=0.0)
    return {path.stem: _read(path, path.stat().st_mtime_ns) for path in sorted(home.glob("runs/*.json"))}


@cache
def _read(path: Path, changed: int) -> RunRecord:  # noqa: ARG001 (a record is read anew once it changes)
    return read_record(path)


def _stages(known: Records, ids: Iterable[str]) -> set[str]:
    return {name for key in ids for name in known[key].stages}


def _runs_now(home: Path, record: RunRecord) -> bool:
    return any(is_locked(home / "stages" / name) for name in record.stages)


def _kind(path: Path) -> str:
    """Return `pretrain` of the stage pretrain-4fa97deb3567."""
    return path.name.rpartition("-")[0]
