"""The schedulers that stop trials which fall behind: Tune's, which here spare trials in their second half.

Times are parts of a training, of which a whole one has 27: trials of any length are compared where they have done the
same share, and the rungs of ASHA lie after 1, 3 and 9 parts; where it ranks by an evaluation, at the first one after
each of these. An evaluation may come when its trial has trained on: it is still judged by what it was.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps.search import StopReasons
from selfsup.sweeps.spec.search import LATEST, RUNGS, Search
from selfsup.sweeps.trial import ENDED, PART, TRAINED, new_reports

GRACE = RUNGS[0]  # part before which nothing is stopped
FACTOR = RUNGS[1] // RUNGS[0]  # from rung to rung; of each a third goes on


class EarlierTrial(NamedTuple):
    """A trial of an earlier session, with what a scheduler reads of it."""

    trial_id: str


class FirstHalfStopping:
    """A scheduler that judges the first half of each training, and stops nothing whose training is over.

    Trials that collapsed or failed are forgotten, so that none is compared with them.
    """

    stop_reasons: StopReasons

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if not result.get(ENDED, True):
            self.forget(trial)
            return TrialScheduler.CONTINUE
        if result[PART] > LATEST:
            return TrialScheduler.CONTINUE
        verdict: str = super().on_trial_result(controller, trial, result)  # type: ignore[misc]
        spared = verdict == TrialScheduler.CONTINUE or result[TRAINED]
        return TrialScheduler.CONTINUE if spared else TrialScheduler.STOP

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """Forget a trial that came to nothing; its last report was judged already."""
        if trial.trial_id in self.stop_reasons.stopped:
            self.forget(trial)

    def on_trial_error(self, controller: Any, trial: Any) -> None:  # noqa: ARG002
        self.forget(trial)

    def forget(self, trial: Any) -> None:
        """Remove the reports of a trial."""
        raise NotImplementedError


class AshaScheduler(FirstHalfStopping, AsyncHyperBandScheduler):
    def forget(self, trial: Any) -> None:
        for bracket in self._brackets:
            for _, recorded in bracket._rungs:
                recorded.pop(trial.trial_id, None)


class MedianScheduler(FirstHalfStopping, MedianStoppingRule):
    def forget(self, trial: Any) -> None:
        self._results.pop(trial, None)


def scheduler(search: Search, earlier: Iterable[PlannedRun], stop_reasons: StopReasons) -> TrialScheduler:
    """Build a scheduler that knows the reports of earlier sessions' trials."""
    rule = _scheduler(search)
    if isinstance(rule, FirstHalfStopping):
        rule.stop_reasons = stop_reasons
    for run in earlier:
        trial = EarlierTrial(run.id)
        rule.on_trial_add(None, trial)  # type: ignore[arg-type]
        for report in new_reports(run, Counter()):
            rule.on_trial_result(None, trial, report)  # type: ignore[arg-type]
    return rule


def _scheduler(search: Search) -> TrialScheduler:
    if search.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    metric, mode = search.ranking
    if search.scheduler == "median":
        never: Any = float("inf")  # to pause a trial, which would end its workers
        return MedianScheduler(
            time_attr=PART,
            metric=metric,
            mode=mode,
            grace_period=GRACE,
            min_time_slice=never,
            hard_stop=False,  # or it will hear no more of a trial that it would have stopped
        )
    return AshaScheduler(
        time_attr=PART,
        metric=metric,
        mode=mode,
        max_t=int(LATEST),
        grace_period=GRACE,
        reduction_factor=FACTOR,
        stop_last_trials=False,  # or it takes reports that skip a rung for reports at a lower one
    )
