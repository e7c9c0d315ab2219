"""A sweep as MLflow's UI shows it: the sweep, below it a run per arm with its statistics, below those the seeds.

Tags repeat this tree flat, since the UI shows children of a page that is not loaded at the top level: it groups by
tags, filters by them and draws them as axes.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Set
from statistics import stdev
from typing import TYPE_CHECKING, Any, Literal

from selfsup.sweeps import mlflow_views, registration
from selfsup.sweeps.registration import RegisteredPlan
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.wording import shown
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.tags import ARM, DRAWN, FACTOR, KIND, SESSIONS, SPENT, STUDY, SWEEP, TRIAL, VALUE
from selfsup.track import ID, SEED, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

BASELINES = "baselines"  # the study that they are shown under
PLAN = "plan.json"  # an artifact of the sweep's run


def tags(sweep: Sweep) -> dict[str, dict[str, str]]:
    """-> our id: the tags of the run; a run that several studies share has those of the first."""
    tags_by_id: dict[str, dict[str, str]] = {}
    for study, arm in _arms(sweep):
        for seed, id in arm.ids.items():  # noqa: A001
            tags_by_id.setdefault(id, _arm_tags(sweep, study, arm) | {KIND: "run", SEED: str(seed)})
    return tags_by_id


def plant(tracker: Tracker, sweep: Sweep) -> dict[str, str]:
    """Open the sweep's run and those of its arms, once: -> our id: MLflow's id of the arm's run."""
    root = open_sweep(tracker, sweep)
    existing = {run.data.tags[ID]: run.info.run_id for run in tracker.runs(sweep.name, _above_seeds(sweep))}
    arm_runs: dict[str, str] = {}
    for study, arm in _arms(sweep):
        key = _arm_id(sweep, study, arm)
        run = existing.get(key) or tracker.open(
            id=key,
            name=f"{study}: {arm.name}",
            experiment=sweep.name,
            params=arm.values,
            tags=_arm_tags(sweep, study, arm) | {KIND: "arm"},
            parent=root,
        )
        arm_runs = dict.fromkeys(arm.ids.values(), run) | arm_runs
    return arm_runs


def of_trial(sweep: Sweep, study: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run that a search proposed."""
    return {SWEEP: sweep.digest, KIND: TRIAL, STUDY: study, DRAWN: json.dumps(values)}


def open_sweep(tracker: Tracker, sweep: Sweep) -> str:
    """Open the run of a sweep, which holds its plan and its report; a changed plan is another sweep's.

    For a search without arms it is the run above its trials.
    """
    if not sweep.studies:
        return _open_search(tracker, sweep)
    params = {"spec": sweep.spec, "digest": sweep.digest, "command": sweep.command}
    lists = {"seeds": sweep.seeds, "metrics": sweep.metrics}
    root = tracker.open(
        id=_sweep_id(sweep),
        name=sweep.name,
        experiment=sweep.name,
        params=params | {name: ", ".join(map(str, values)) for name, values in lists.items()},
        tags={SWEEP: sweep.digest, KIND: "sweep"},
    )
    mlflow_views.keep(tracker, sweep, root)
    if tracker.fetch(root, PLAN) is None:
        tracker.content(root, PLAN, registration.written(sweep), "")
    return root


def _open_search(tracker: Tracker, sweep: Sweep) -> str:
    assert sweep.search
    params = {"spec": sweep.spec, "digest": sweep.digest, "metrics": ", ".join(sweep.search.search.objectives)}
    over = {SPENT: sweep.search.search.budget} if sweep.search.over else {}
    tags = {SWEEP: sweep.digest, KIND: "search", SESSIONS: str(sweep.search.sessions)} | over
    root = tracker.open(id=_sweep_id(sweep), name=sweep.name, experiment=sweep.name, params=params, tags=tags)
    mlflow_views.keep(tracker, sweep, root)
    return root


def plans(tracker: Tracker, sweep: str) -> list[RegisteredPlan]:
    """Return every plan that was registered under the name of a sweep, oldest first."""
    roots = tracker.runs(sweep, f"tags.`{KIND}` = 'sweep'")
    files = [(tracker.fetch(run.info.run_id, PLAN), run.info.start_time) for run in roots]
    return [registration.read(plan, time) for plan, time in files if plan]


def summarize(tracker: Tracker, ablation: Ablation) -> None:
    """Record the statistics of the arms that `plant` opened.

    <metric>/mean, /sd, /n, and /low and /high of the 95 % interval. Recording what is recorded already changes nothing.
    """
    sweep = ablation.sweep
    opened = {run.data.tags[ID]: run for run in tracker.runs(sweep.name, _above_seeds(sweep))}
    status = {result.id: result.status for result in ablation.results}
    cells: dict[frozenset[str], Mapping[str, Cell]] = {}
    for line in (line for table in ablation.tables for line in table.lines):
        cells.setdefault(frozenset(line.arm.ids.values()), line.cells)
    for study, arm in _arms(sweep):
        if run := opened.get(_arm_id(sweep, study, arm)):
            arm_cells = cells.get(frozenset(arm.ids.values()), {})
            _record(tracker, run, _statistics(arm_cells), {status[id] for id in arm.ids.values() if id in status})  # noqa: A001
    if run := opened.get(_sweep_id(sweep)):
        trials = sweep.search.trials if sweep.search and not sweep.studies else ()
        _record(tracker, run, {}, {*status.values(), *(trial.result.status for trial in trials)})


def _record(tracker: Tracker, run: "Run", values: Mapping[str, float], seeds: Set[str]) -> None:
    new = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
    if new:
        tracker.metrics(run.info.run_id, new, time=time.time_ns() // 1_000_000)
    status = _status(seeds)
    if status and status != run.info.status:
        tracker.finish(run.info.run_id, status)


def _status(seeds: Set[str]) -> Literal["FINISHED", "FAILED", "KILLED"] | None:
    """Return the status of a run above others; None while one of them is running."""
    if "running" in seeds:
        return None
    if seeds == {"done"}:
        return "FINISHED"
    return "FAILED" if "failed" in seeds else "KILLED"


def _statistics(cells: Mapping[str, Cell]) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric, cell in cells.items():
        values[f"{metric}/n"] = cell.n
        if cell.mean is not None:
            values[f"{metric}/mean"] = cell.mean
        if len(cell.values) > 1:
            values[f"{metric}/sd"] = stdev(cell.values.values())
        if cell.mean is not None and cell.half is not None:
            least, most = cell.scale.ends
            values[f"{metric}/low"] = max(least, cell.mean - cell.half)
            values[f"{metric}/high"] = min(most, cell.mean + cell.half)
    return values


def _arms(sweep: Sweep) -> Iterator[tuple[str, Arm]]:
    """Yield (study, arm), the baselines last."""
    yield from ((study.name, arm) for study in sweep.studies for arm in study.arms)
    yield from ((BASELINES, arm) for arm in sweep.baselines)


def _arm_tags(sweep: Sweep, study: str, arm: Arm) -> dict[str, str]:
    """Return the tags of an arm; a default has no factor and value, since it belongs to every factor."""
    tags = {SWEEP: sweep.digest, STUDY: study, ARM: arm.name}
    if arm.changed:
        names = (path.rpartition(".")[2] for path in arm.changed)
        tags |= {FACTOR: ", ".join(names), VALUE: ", ".join(shown(value) for value in arm.changed.values())}
    return tags


def _sweep_id(sweep: Sweep) -> str:
    return f"sweep-{sweep.digest}"


def _arm_id(sweep: Sweep, study: str, arm: Arm) -> str:
    text = "\n".join((sweep.digest, study, arm.name))
    return f"arm-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _above_seeds(sweep: Sweep) -> str:
    return f"tags.`{SWEEP}` = '{sweep.digest}' AND tags.`{KIND}` != 'run'"
