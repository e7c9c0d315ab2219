"""A sweep as MLflow's UI shows it: the sweep, under it a run an arm with the arm's statistics, under those the seeds.

The tags say the same flat, since the UI shows children of a page that is not loaded at the top: it groups by them,
filters by them and draws them as axes.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Set
from statistics import stdev
from typing import TYPE_CHECKING, Literal

from selfsup.reporting.wording import shown
from selfsup.sweepspec.arms import Arm, Sweep
from selfsup.track import ID, SEED, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

    from selfsup.reporting.tables import Ablation, Cell

SWEEP, KIND = "selfsup.sweep", "selfsup.kind"  # the digest of the plan; sweep, arm or run
STUDY, ARM, FACTOR, VALUE = "selfsup.study", "selfsup.arm", "selfsup.factor", "selfsup.value"
BASELINES = "baselines"  # the study that they are shown under


def tags(sweep: Sweep) -> dict[str, dict[str, str]]:
    """Our id -> the tags of every run of a sweep; a run of several studies has those of the first."""
    found: dict[str, dict[str, str]] = {}
    for study, arm in _arms(sweep):
        for seed, id in arm.ids.items():  # noqa: A001
            found.setdefault(id, _of_arm(sweep, study, arm) | {KIND: "run", SEED: str(seed)})
    return found


def plant(tracker: Tracker, sweep: Sweep) -> dict[str, str]:
    """Open the sweep's run and those of its arms; our id -> MLflow's id of the arm's run. Twice is once."""
    root = open_sweep(tracker, sweep)
    there = {run.data.tags[ID]: run.info.run_id for run in tracker.runs(sweep.name, _above_seeds(sweep))}
    found: dict[str, str] = {}
    for study, arm in _arms(sweep):
        key = _key(sweep, study, arm)
        run = there.get(key) or tracker.open(
            id=key,
            name=f"{study}: {arm.name}",
            experiment=sweep.name,
            params=arm.values,
            tags=_of_arm(sweep, study, arm) | {KIND: "arm"},
            parent=root,
        )
        found = dict.fromkeys(arm.ids.values(), run) | found
    return found


def open_sweep(tracker: Tracker, sweep: Sweep) -> str:
    """The run of a sweep itself, which its report is stored with. A plan that was changed is another sweep's."""
    return tracker.open(
        id=_root(sweep),
        name=sweep.name,
        experiment=sweep.name,
        params={"spec": sweep.spec, "digest": sweep.digest, "seeds": ", ".join(map(str, sweep.seeds))},
        tags={SWEEP: sweep.digest, KIND: "sweep", "mlflow.note.content": sweep.question},
    )


def summarise(tracker: Tracker, found: "Ablation") -> None:
    """Record how the arms that `plant` opened stand: <metric>/mean, /sd, /n, and /low and /high of the 95 % interval.

    Recording what is recorded already changes nothing.
    """
    sweep = found.sweep
    opened = {run.data.tags[ID]: run for run in tracker.runs(sweep.name, _above_seeds(sweep))}
    status = {result.id: result.status for result in found.results}
    cells: dict[frozenset[str], Mapping[str, Cell]] = {}
    for line in (line for table in found.tables for line in table.lines):
        cells.setdefault(frozenset(line.arm.ids.values()), line.cells)
    for study, arm in _arms(sweep):
        if run := opened.get(_key(sweep, study, arm)):
            held = cells.get(frozenset(arm.ids.values()), {})
            _record(tracker, run, _statistics(held), {status[id] for id in arm.ids.values() if id in status})  # noqa: A001
    if run := opened.get(_root(sweep)):
        _record(tracker, run, {}, set(status.values()))


def _record(tracker: Tracker, run: "Run", values: Mapping[str, float], seeds: Set[str]) -> None:
    new = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
    if new:
        tracker.metrics(run.info.run_id, new, time=time.time_ns() // 1_000_000)
    status = _status(seeds)
    if status and status != run.info.status:
        tracker.finish(run.info.run_id, status)


def _status(seeds: Set[str]) -> Literal["FINISHED", "FAILED", "KILLED"] | None:
    """Of what is above runs that stand so; None while one is running."""
    if "running" in seeds:
        return None
    if seeds == {"finished"}:
        return "FINISHED"
    return "FAILED" if "failed" in seeds else "KILLED"


def _statistics(cells: "Mapping[str, Cell]") -> dict[str, float]:
    found: dict[str, float] = {}
    for metric, cell in cells.items():
        found[f"{metric}/n"] = cell.n
        if cell.mean is not None:
            found[f"{metric}/mean"] = cell.mean
        if len(cell.values) > 1:
            found[f"{metric}/sd"] = stdev(cell.values.values())
        if cell.mean is not None and cell.half is not None:
            found |= {f"{metric}/low": cell.mean - cell.half, f"{metric}/high": cell.mean + cell.half}
    return found


def _arms(sweep: Sweep) -> Iterator[tuple[str, Arm]]:
    """(study, arm), the baselines last."""
    yield from ((study.name, arm) for study in sweep.studies for arm in study.arms)
    yield from ((BASELINES, arm) for arm in sweep.baselines)


def _of_arm(sweep: Sweep, study: str, arm: Arm) -> dict[str, str]:
    """Without factor and value for a default, which is every factor's."""
    found = {SWEEP: sweep.digest, STUDY: study, ARM: arm.name}
    if arm.changed:
        names = (path.rpartition(".")[2] for path in arm.changed)
        found |= {FACTOR: ", ".join(names), VALUE: ", ".join(shown(value) for value in arm.changed.values())}
    return found


def _root(sweep: Sweep) -> str:
    return f"sweep-{sweep.digest}"


def _key(sweep: Sweep, study: str, arm: Arm) -> str:
    told = "\n".join((sweep.digest, study, arm.name))
    return f"arm-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}"


def _above_seeds(sweep: Sweep) -> str:
    return f"tags.`{SWEEP}` = '{sweep.digest}' AND tags.`{KIND}` != 'run'"
