"""Ray Tune drives, Ray Train runs: every run that is not done, as many at a time as the cluster holds.

Nothing of Tune's own state is relied on: what is done lies in the stages' folders, so to go on is to plan again and
leave out what is there.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from selfsup import failures
from selfsup.failures import ENOUGH, Failure
from selfsup.pipelines.cluster.embedded import logs
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.sharing import side_by_side
from selfsup.pipelines.stages.worker import DAMAGED
from selfsup.progress import follow, say
from selfsup.scratch import scratch
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.resources import TRIAL, at_a_time
from selfsup.sweeps.trial import ENDED, FAILURE, STEP, Plans, trial

RESTARTS = 3  # of a trial that died without having noted why
ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an evaluation comes with the last report only
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Listed:
    """The runs of an ablation, by id."""

    runs: Mapping[str, PlannedRun]

    def of(self, config: Mapping[str, Any]) -> PlannedRun:
        return self.runs[config["id"]]


def execute(runs: Sequence[PlannedRun], recorder: Recorder) -> list[Failure]:
    """Bring every run to its end and its numbers to MLflow; say why those failed that did.

    Call it inside `cluster()` unless all are done. A run that fails leaves the others alone, until several have failed
    alike. Raises SpecError, before anything starts, where the cluster could never hold one of them; TrackError where
    MLflow went away and stayed away: the numbers are kept, and the same command sends them.
    """
    left = [each for each in runs if not each.done]
    at_once = at_a_time(left) if left else 0
    missing = {each.id: each for each in side_by_side(left, at_once)}
    watch = Watch(Listed(missing), recorder)
    if missing:
        config = tune.TuneConfig(max_concurrent_trials=at_once)
        fit(watch, Enough(watch), config, {"id": tune.grid_search(list(missing))}, runs[0].home)
    recorder.catch_up(runs)
    return watch.failed


def fit(watch: "Watch", stop: tune.Stopper, config: tune.TuneConfig, space: dict[str, Any], home: Path) -> None:
    """Let Tune run the trials that a space or a searcher proposes, as the watch follows them."""
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)  # it is never restored
    with scratch(home / "tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, plans=watch.plans), TRIAL),
            param_space=space,
            tune_config=config,
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                stop=stop,
                callbacks=[watch],
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            watch.interrupted()
            say("interrupted; the same command continues")
            raise


class Watch(tune.Callback):
    """Follows the trials: a live line each, their numbers to MLflow, their failures counted."""

    def __init__(self, plans: Plans, recorder: Recorder) -> None:
        self.plans, self._recorder = plans, recorder
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
        """Whether so many have failed alike that the rest would too."""
        return any(number >= ENOUGH for number in self._alike.values())

    def of(self, trial: Trial) -> PlannedRun:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self.plans.of(trial.config)
        return self._runs[trial.trial_id]

    def steps(self, trial_id: str) -> int:
        """Of the whole training of a trial that has begun."""
        return self._runs[trial_id].steps

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        each = self.of(trial)
        if each.id in self._shown:  # it died, and starts anew
            return
        self._recorder.begin(each)
        shown = ExitStack()
        if each.pretrain and not each.pretrain.done:
            shown.enter_context(follow(each.pretrain, title(each), each.steps))
        self._shown[each.id] = shown, monotonic()

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        last = trial.last_result or {}
        behind = f"fell behind the others at step {last.get(STEP, 0)}"
        stopped = self.stopped.get(trial.trial_id) or self.over or behind
        failure = Failure(**last[FAILURE]) if FAILURE in last else None
        self._end(self.of(trial), "" if ENDED in last else stopped, failure)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:  # type: ignore[override]
        each = self.of(trial)
        told = f"its process died {RESTARTS + 1} times without saying why; see the logs of Ray: {logs()}"
        failure = failures.read(each.failure) or Failure("infrastructure", "SelfsupError", told)
        with suppress(OSError):
            failures.write(failure, each.failure)
        self._end(each, failure=failure)

    def interrupted(self) -> None:
        for shown, _ in self._shown.values():
            shown.close()
        self._recorder.interrupted()

    def _end(self, each: PlannedRun, stopped: str = "", failure: Failure | None = None) -> None:
        shown, began = self._shown.pop(each.id, (ExitStack(), monotonic()))
        shown.close()
        failure = None if each.done or stopped else failure or failures.read(each.failure)  # a stop may be noted as one
        self.fair += failure is None
        for line in _passed_over(each):
            say(f"{title(each)}: trained on from an older checkpoint: {line}")
        if each.done:
            say(f"{title(each)} done in {monotonic() - began:.0f} s{_scores(each)}")
        elif failure:
            self.failed.append(failure)
            self._alike[failure.kind, _impersonal(failure, each)] += 1
            say(f"{title(each)} failed: {failure.reason}")
        else:
            say(f"{title(each)} stopped: {stopped}")
        self._recorder.end(each, failure, "" if each.done else stopped)


class Enough(tune.Stopper):
    """Ends a sweep once its failures repeat themselves."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, *_: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._watch.enough:
            self._watch.over = "the others failed alike"
        return self._watch.enough


def title(each: PlannedRun) -> str:
    return f"{each.id} seed {each.run.seed}"


def _impersonal(failure: Failure, each: PlannedRun) -> str:
    """The last line of what a failure says, of whichever run: kinds of stages in place of their names."""
    last = failure.message.rstrip().rpartition("\n")[2]
    for stage in each.stages:
        last = last.replace(stage.key, stage.kind)
    return last


def _passed_over(each: PlannedRun) -> list[str]:
    note = each.pretrain and each.pretrain.folder / DAMAGED
    return note.read_text().splitlines() if note and note.exists() else []


def _scores(each: PlannedRun) -> str:
    scores = {name: stage.result() for name, stage in each.probes.items()}
    told = [f"{name} {result['top1']:.2f}" for name, result in scores.items() if "top1" in result]
    return f": {', '.join(told)}" if told else ""
