"""The status of every run of a sweep, from the folders of its stages, which hold all of its state."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from selfsup import failures, origin
from selfsup.columns import aligned
from selfsup.homes import DURABLE
from selfsup.metrics_log import tail
from selfsup.pipelines.summary import RunSummary
from selfsup.stage import read_json
from selfsup.sweeps.averages import averages, flat, mean_curves
from selfsup.sweeps.report.wording import scored
from selfsup.sweeps.result import Status
from selfsup.sweeps.spec.sweep import Sweep

if TYPE_CHECKING:
    from selfsup.pipelines.planned import PlannedRun
    from selfsup.sweeps.spec.sweepfile import SweepFile
    from selfsup.sweeps.spec.trials import Trial

    AnyRun = PlannedRun | RunSummary


class RunStatus(NamedTuple):
    """The status of one run. study: "" for a baseline. why: it failed, was stopped, or what it waits for; "" when done.

    kind: "trial" for a run that a search proposed. metrics: the headline metrics of its finished evaluations.
    """

    study: str
    arm: str
    seed: int
    id: str
    status: Status
    why: str
    kind: Literal["run", "trial"] = "run"
    metrics: Mapping[str, float] = MappingProxyType({})

    @property
    def ended(self) -> bool:
        """Return whether nothing of it is missing; a trial may also fail or be stopped."""
        return self.status == "done" or (self.kind == "trial" and self.status in ("failed", "stopped"))


def run_statuses(sweep: Sweep, planned: "Mapping[str, PlannedRun] | Mapping[str, RunSummary]") -> list[RunStatus]:
    """Return baselines first, then arm by arm; a run that arms share is listed for each of them."""
    arms = [("", arm) for arm in sweep.baselines] + [(study.name, arm) for study in sweep.studies for arm in study.arms]
    return [
        RunStatus(study, arm.name, seed, id, *_run_status(planned[id]), metrics=scores(planned[id]))
        for study, arm in arms
        for seed, id in arm.ids.items()  # noqa: A001
    ]


def plan_data(sweep: Sweep, planned: "Mapping[str, RunSummary]") -> list[dict[str, Any]]:
    """Return the runs of a plan as data: their status, steps, and stages, each with whether it is done."""
    data = []
    for entry in run_statuses(sweep, planned):
        run = planned[entry.id]
        stages = {stage.space: stage.done for stage in run.stages}
        steps = run.steps if run.pretrain else 0
        data.append({"sweep": sweep.name, **entry._asdict(), "steps": steps, "stages": stages})
    return data


def trial_statuses(sweep_file: "SweepFile", sweep: Sweep, home: Path) -> Iterator[RunStatus]:
    """Yield the trials of a search, and until it is over the runs that wait for it; nothing for another sweep."""
    if sweep.search is None:
        return
    for trial in sweep.search.trials:
        seed, key = trial.result.seed, trial.result.id
        state = _trial_status(sweep_file, trial, home)
        numbers = {name: trial.metrics[name] for name in sweep.metrics if name in trial.metrics}
        yield RunStatus(trial.study, trial.name, seed, key, *state, kind="trial", metrics=numbers)
    if not sweep.studies:
        begun, ended = len(sweep.search.trials), len(sweep.search.ended)
        why = f"{begun} trials have begun, {ended} came to a result; the search ends after {sweep.search.search.budget}"
        yield from (RunStatus("", "what is best", seed, "", "pending", why) for seed in sweep.seeds)


def _trial_status(sweep_file: "SweepFile", trial: "Trial", home: Path) -> tuple[Status, str]:
    """Return a trial's status as MLflow holds it, or from the folders of its stages while it has not ended there."""
    match trial.result.status:
        case "done" | "failed" | "stopped" as status:
            return status, trial.result.reason
    from selfsup.sweeps.spec.confirm import plan_again  # which torch is needed for

    return _run_status(plan_again(sweep_file, trial, home))


def text(entries: Sequence[RunStatus]) -> str:
    """Write the number of runs per status, and a line for each run: its numbers, or why it has none."""
    number: Counter[str] = Counter(entry.status for entry in entries)
    shown = ("done", "running", "failed", *(["stopped"] if number["stopped"] else []), "pending")
    head = ", ".join(f"{number[status]} {status}" for status in shown)
    return "\n".join([head, *([aligned([_row(entry) for entry in entries])] if entries else [])])


def _row(entry: RunStatus) -> tuple[str, ...]:
    name = ": ".join(part for part in (entry.study, entry.arm) if part)
    about = "; ".join(part for part in (scored(entry.metrics), entry.why) if part)
    return f"  {name}", f"seed {entry.seed}", entry.status, entry.id, about


def _code_status(run: "AnyRun") -> tuple[Status, str]:
    """Return the status of a finished run: done, if this code made it."""
    other = [f"{stage.kind}: {', '.join(names)}" for stage in run.stages if (names := origin.changes(stage))]
    return ("pending", f"made by other code ({'; '.join(other)}): {origin.REMEDY}") if other else ("done", "")


def _run_status(run: "AnyRun") -> tuple[Status, str]:
    if run.done:
        return _code_status(run)
    missing = next(stage for stage in run.stages if not stage.done)
    if missing.running:
        return "running", f"{missing.kind}{_progress(run)}"
    if failure := failures.read(run.failure):
        return "failed", failure.reason
    return "pending", f"{missing.kind} {'was interrupted' if missing.folder.exists() else 'not begun'}{_progress(run)}"


def _progress(run: "AnyRun") -> str:
    record = tail(run.pretrain.spool) if run.pretrain and not run.pretrain.done else None
    return f" at step {record.step} of {run.steps}{_durable(run)}" if record else ""


def _durable(run: "AnyRun") -> str:
    """Return how far object storage has a training."""
    path = run.pretrain and run.pretrain.folder / DURABLE
    return f", of which storage has {read_json(path, step=int)['step']}" if path and path.exists() else ""


def scores(run: "AnyRun") -> dict[str, float]:
    """Return the headline metrics of the evaluations that are done, by the names that MLflow has them under."""
    numbers = flat({stage.space: stage.result() for stage in run.probes.values() if stage.done}) | averages(run)
    return {name: numbers[name] for name in run.headlines if name in numbers}


def latest_scores(run: "PlannedRun") -> dict[str, float]:
    """Return the headline metrics of the latest evaluations during training, likewise."""
    latest = {stage.space: tail(stage.spool) for stage in run.probes.values()}
    numbers = flat({space: record.values for space, record in latest.items() if record})
    numbers |= {name: [*curve.values()][-1] for name, curve in mean_curves(run).items() if curve}
    return {name: numbers[name] for name in run.headlines if name in numbers}
