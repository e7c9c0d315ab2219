"""Who stops trials of a search that fall behind: Tune's schedulers, which here leave alone what has trained for long.

Times are parts of a training, of which a whole one has 27: trials of any length are compared where they have done the
same share, and the rungs of ASHA lie after 1, 3 and 9 parts.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from selfsup.metrics_log import records
from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps.search import Verdicts
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.trial import ENDED, PART, PARTS, TRAINED, report_at

GRACE = 1  # part before which nothing is stopped
LATEST = PARTS / 2  # after which nothing is
FACTOR = 3  # from rung to rung; of each a third goes on


class Past(NamedTuple):
    """A trial of an earlier session, as a scheduler asks for it."""

    trial_id: str


class Early:
    """A scheduler that knows of the first half of each training, and stops nothing whose training is over.

    With a trial that collapsed or failed nothing is compared: what it was told of one is forgotten.
    """

    verdicts: Verdicts

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
        """Not told again of its last report."""
        if trial.trial_id in self.verdicts.stopped:
            self.forget(trial)

    def on_trial_error(self, controller: Any, trial: Any) -> None:  # noqa: ARG002
        self.forget(trial)

    def forget(self, trial: Any) -> None:
        """Compare nothing with it."""
        raise NotImplementedError


class Asha(Early, AsyncHyperBandScheduler):
    def forget(self, trial: Any) -> None:
        for bracket in self._brackets:
            for _, recorded in bracket._rungs:
                recorded.pop(trial.trial_id, None)


class Median(Early, MedianStoppingRule):
    def forget(self, trial: Any) -> None:
        self._results.pop(trial, None)


def scheduler(search: Search, earlier: Iterable[PlannedRun], verdicts: Verdicts) -> TrialScheduler:
    """earlier: the trials that it has seen before."""
    found = _scheduler(search)
    if isinstance(found, Early):
        found.verdicts = verdicts
    for each in earlier:
        assert each.pretrain
        past = Past(each.id)
        found.on_trial_add(None, past)  # type: ignore[arg-type]
        for record in records(each.pretrain.spool, committed=False):
            found.on_trial_result(None, past, report_at(each, record.step, record.values))  # type: ignore[arg-type]
    return found


def _scheduler(search: Search) -> TrialScheduler:
    if search.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    metric, mode = search.ranking
    if search.scheduler == "median":
        never: Any = float("inf")  # to pause a trial, which would end its workers
        return Median(
            time_attr=PART,
            metric=metric,
            mode=mode,
            grace_period=GRACE,
            min_time_slice=never,
            hard_stop=False,  # or it will hear no more of a trial that it would have stopped
        )
    return Asha(
        time_attr=PART,
        metric=metric,
        mode=mode,
        max_t=int(LATEST),
        grace_period=GRACE,
        reduction_factor=FACTOR,
        stop_last_trials=False,  # or it takes reports that skip a rung for reports at a lower one
    )
