"""One run as a Tune trial: the driver of one Ray Train run, and of the stages around it."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ray import tune

from selfsup.failures import Failure, classify
from selfsup.metrics_log import records, tail
from selfsup.pipelines.cluster.embedded import quiet
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.runner import perform

POLL = 0.5  # seconds between looks at how far training is
STEP, SAMPLES = "step", "samples"  # of every report: what of the training is done, restarts or not
PART, PARTS = "part", 27  # of every report: the same as so many of 27 parts, alike for trainings of any length
TRAINED = "trained"  # of every report: whether the training is over, so that to stop the trial saves nothing
FAILURE = "failure"  # of the last report of one that failed: a Failure, which a full disk takes no note of
ENDED = "ended"  # of the last report: whether the run came to all of its results


class Plans(Protocol):
    """What a trial's configuration stands for."""

    def of(self, config: Mapping[str, Any]) -> PlannedRun: ...


def trial(config: dict[str, Any], plans: Plans) -> None:
    """Report every record of the training, then the results, or why it failed, which is no error of the trial.

    The numbers of the last training step come with the results. Tune starts one anew that dies without a reason.
    """
    quiet()
    each, failed = plans.of(config), list[Failure]()
    # daemon: a trial that is stopped must end
    work = threading.Thread(target=_perform, args=(each, failed), daemon=True)
    work.start()
    for report in _progress(each, work):
        tune.report(report)
    if not each.done and not failed:
        raise RuntimeError("ended without a result and without a reason")
    tune.report(_results(each) | ({FAILURE: failed[0]._asdict()} if failed else {}))


def _perform(each: PlannedRun, failed: list[Failure]) -> None:
    try:
        perform(each)
    except Exception as error:
        failed.append(classify(error))


def _progress(each: PlannedRun, work: threading.Thread) -> Iterator[dict[str, float]]:
    spool, seen = each.pretrain.spool if each.pretrain else None, 0
    while work.is_alive():
        work.join(POLL)
        if spool is None or (latest := tail(spool)) is None or latest.step <= seen:
            continue
        for record in records(spool, committed=False):
            if record.step > seen:
                seen, latest = record.step, tail(spool)  # a report may have waited for Tune
                numbers = record.values if seen < each.steps else {}
                yield report_at(each, seen, numbers, trained=latest is not None and latest.step >= each.steps)


def report_at(each: PlannedRun, step: int, values: Mapping[str, float], *, trained: bool = False) -> dict[str, float]:
    """What Tune, and whoever decides for it, is told of a step of the training."""
    done = {STEP: step, SAMPLES: step * each.run.train.batch, PART: PARTS * step / each.steps, TRAINED: trained}
    return done | {f"pretrain/{name}": value for name, value in values.items()}


def _results(each: PlannedRun) -> dict[str, float]:
    """Beside them the latest numbers of the training, which a search may be after."""
    latest = tail(each.pretrain.spool) if each.pretrain else None
    done = [stage for stage in each.stages if stage.done]
    results = {f"{stage.space}/{name}": value for stage in done for name, value in stage.result().items()}
    numbers = report_at(each, latest.step if latest else 0, latest.values if latest else {}, trained=True)
    return {**numbers, **results, ENDED: each.done}
