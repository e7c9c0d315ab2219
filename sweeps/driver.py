"""The driver of sweeps: Ray Tune runs every unfinished run as a trial, as many at a time as the cluster holds.

Tune's own state is never restored: finished work lies in the stages' folders, so to resume is to plan again and leave
out what is there.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from selfsup import failures
from selfsup.failures import MAX_ALIKE, Failure
from selfsup.homes import fetch, following
from selfsup.mirror_index import notes
from selfsup.objects import StorageError
from selfsup.pipelines.cluster.ray_context import logs_folder
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.sharing import sort_by_stream
from selfsup.pipelines.stages.worker import DAMAGED
from selfsup.progress import Remaining, follow, say
from selfsup.scratch import scratch
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.report.wording import scored
from selfsup.sweeps.resources import at_a_time, beside_command
from selfsup.sweeps.status import latest_scores, scores
from selfsup.sweeps.trial import ENDED, FAILURE, STEP, RunLookup, RunTrial

RESTARTS = 3  # of a trial that died without having noted why
ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an evaluation comes with the last report only
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class RunsById:
    """The runs of an ablation, by id."""

    runs: Mapping[str, PlannedRun]

    def of(self, config: Mapping[str, Any]) -> PlannedRun:
        return self.runs[config["id"]]


def execute(runs: Sequence[PlannedRun], recorder: Recorder) -> list[Failure]:
    """Run every unfinished run, record results in MLflow, and return the failures.

    Call it inside `ray_context()` unless all are done. A run that fails leaves the others alone, until several have
    failed alike. Raises SpecError, before anything starts, where the cluster could never hold one of them; TrackError
    where MLflow stays away: the numbers are kept, and the same command sends them.
    """
    left = [run for run in runs if not run.done]
    at_once = at_a_time(left) if left else 0
    runs_by_id = {run.id: recorder.placed(run) for run in sort_by_stream(left, at_once)}
    work = {run.id: 1.0 + run.steps * run.run.train.batch for run in left}  # a baseline has no steps
    monitor = TrialMonitor(RunsById(runs_by_id), recorder, Remaining(work))
    if runs_by_id:
        config = tune.TuneConfig(max_concurrent_trials=at_once)
        fit(monitor, FailureStopper(monitor), config, {"id": tune.grid_search(list(runs_by_id))}, runs[0].home)
    recorder.catch_up(runs)
    return monitor.failed


def fit(
    monitor: "TrialMonitor", stop: tune.Stopper, config: tune.TuneConfig, space: dict[str, Any], home: Path
) -> None:
    """Let Tune run the trials of a grid or a searcher, and let the monitor follow them."""
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)  # it is never restored
    named = replace(
        config,
        reuse_actors=True,
        trial_name_creator=lambda trial: monitor.of(trial).title,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )
    with scratch(home / "tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(RunTrial, plans=monitor.plans), beside_command()),
            param_space=space,
            tune_config=named,
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                stop=stop,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # finished work lies in its stages
                callbacks=[monitor],
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            monitor.interrupted()
            say("interrupted; the same command continues")
            raise


class TrialMonitor(tune.Callback):
    """A Tune callback that follows trials: a live line for each, its numbers to MLflow, failures counted."""

    def __init__(self, plans: RunLookup, recorder: Recorder, remaining: Remaining | None = None) -> None:
        self.plans, self._recorder, self._remaining = plans, recorder, remaining
        self._runs: dict[str, PlannedRun] = {}
        self._shown: dict[str, tuple[ExitStack, float]] = {}
        self.failed: list[Failure] = []
        self._alike = Counter[tuple[str, str]]()
        self.fair = 0  # trials that ended without failing
        self.stopped: dict[str, str] = {}  # trial -> why
        self.over = ""  # why all that still ran were stopped

    def __reduce__(self) -> tuple[Any, ...]:
        return tune.Callback, ()  # Tune pickles it, to restore what is never restored

    @property
    def enough(self) -> bool:
        """Return whether so many runs failed alike that the rest would too."""
        return any(number >= MAX_ALIKE for number in self._alike.values())

    def of(self, trial: Trial) -> PlannedRun:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self.plans.of(trial.config)
        return self._runs[trial.trial_id]

    def steps(self, trial_id: str) -> int:
        """Return the training steps of a trial that has begun."""
        return self._runs[trial_id].steps

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        run = self.of(trial)
        if run.id in self._shown:  # it died, and starts anew
            return
        self._recorder.begin(run)
        shown = ExitStack()
        for stage in (*run.training, *run.tunings):
            if stage.kind == "pretrain" and not stage.done:
                owner, name = run.owner(stage), f"{title(run)} {stage.name}".rstrip()
                shown.enter_context(following([stage.folder]))
                shown.enter_context(follow(stage, name, owner.steps, partial(_latest, owner)))
        self._shown[run.id] = shown, monotonic()

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        last = trial.last_result or {}
        behind = f"fell behind the others at step {last.get(STEP, 0)}"
        stopped = self.stopped.get(trial.trial_id) or self.over or behind
        failure = Failure(**last[FAILURE]) if FAILURE in last else None
        self._end(self.of(trial), "" if ENDED in last else stopped, failure)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        run = self.of(trial)
        message = f"its process died {RESTARTS + 1} times without saying why; see the logs of Ray: {logs_folder()}"
        failure = failures.read(run.failure) or Failure("infrastructure", "SelfsupError", message)
        with suppress(OSError):
            failures.write(failure, run.failure)
        self._end(run, failure=failure)

    def interrupted(self) -> None:
        for shown, _ in self._shown.values():
            shown.close()
        self._recorder.interrupted()

    def _end(self, run: PlannedRun, stopped: str = "", failure: Failure | None = None) -> None:
        display, began = self._shown.pop(run.id, (ExitStack(), monotonic()))
        display.close()
        with suppress(StorageError):
            fetch((stage.folder for stage in run.stages), notes)
        failure = None if run.done or stopped else failure or failures.read(run.failure)  # a stop may be noted as one
        self.fair += failure is None
        for line in _passed_over(run):
            say(f"{title(run)}: trained on from an older checkpoint: {line}")
        left = f" ({self._remaining.after(run.id)})" if self._remaining else ""
        if run.done:
            numbers = scores(run)
            ending = f": {scored(numbers)}" if numbers else ""
            say(f"{title(run)} done in {monotonic() - began:.0f} s{ending}{left}")
        elif failure:
            self.failed.append(failure)
            self._alike[failure.kind, _impersonal(failure, run)] += 1
            say(f"{title(run)} failed: {failure.reason}{left}")
        else:
            say(f"{title(run)} stopped: {stopped}{left}")
        self._recorder.end(run, failure, "" if run.done else stopped)


class FailureStopper(tune.Stopper):
    """A Tune stopper that ends a sweep once its failures repeat."""

    def __init__(self, monitor: TrialMonitor) -> None:
        self._monitor = monitor

    def __call__(self, *_: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._monitor.enough:
            self._monitor.over = "the others failed alike"
        return self._monitor.enough


def _latest(run: PlannedRun) -> str:
    return scored(latest_scores(run))


def title(run: PlannedRun) -> str:
    return f"{run.id} seed {run.run.seed}"


def _impersonal(failure: Failure, run: PlannedRun) -> str:
    """Return a failure's last line with kinds of stages in place of their keys, equal for all runs."""
    last = failure.message.rstrip().rpartition("\n")[2]
    for stage in run.stages:
        last = last.replace(stage.key, stage.kind)
    return last


def _passed_over(run: PlannedRun) -> list[str]:
    note = run.pretrain and run.pretrain.folder / DAMAGED
    return note.read_text().splitlines() if note and note.exists() else []
