"""One run as a Tune trial: it drives one Ray Train run, and the stages around it."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ray import tune
from ray.tune.result import DONE

from selfsup.failures import Failure, classify
from selfsup.metrics_log import Record, records, tail
from selfsup.pipelines.cluster import slot
from selfsup.pipelines.cluster.ray_context import disable_progress_bars
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.curves import logs
from selfsup.pipelines.stages.runner import perform
from selfsup.sweeps.averages import averages, mean_curves
from selfsup.sweeps.spec.search import PARTS

POLL = 0.5  # seconds between looks at how far training is
STEP, SAMPLES = "step", "samples"  # of every report: what of the training is done, restarts or not
PART = "part"  # of every report: when its numbers are of, in PARTS
TRAINED = "trained"  # of every report: whether the training is over, so that to stop the trial saves nothing
FAILURE = "failure"  # of the last report of one that failed: a Failure, which a full disk takes no note of
ENDED = "ended"  # of the last report: whether the run came to all of its results


class RunLookup(Protocol):
    """A lookup from a trial's configuration to its run."""

    def of(self, config: Mapping[str, Any]) -> PlannedRun: ...


class RunTrial(tune.Trainable):
    """A trial: it reports every record of the training, then the results, or the failure, which is no error of it.

    The numbers of the last training step come with the results. Tune restarts a trial that dies without a reason, and
    gives its process to another one when it ends; so that one also takes over its slot.
    """

    def setup(self, config: dict[str, Any], plans: RunLookup) -> None:  # type: ignore[override]
        disable_progress_bars()
        self._plans = plans
        self._begin(config)

    def step(self) -> dict[str, Any]:
        return next(self._reports)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._abandon()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._abandon()
        slot.close_idle()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._work = RunThread(self._plans.of(config))
        self._reports = _reports(self._work)

    def _abandon(self) -> None:
        """End what was stopped. Its thread may look on for a while, but its workers end now."""
        if self._work.is_alive():
            self._work.is_stopped = True
            slot.close_busy()


class RunThread(threading.Thread):
    """A thread that performs a run. failed: why it ended without a result. is_stopped: that it was to do so."""

    def __init__(self, run: PlannedRun) -> None:
        super().__init__(daemon=True)  # a trial that is stopped must end
        self.planned, self.failed, self.is_stopped = run, list[Failure](), False
        self.start()

    def run(self) -> None:
        try:
            perform(self.planned, keep_slot=True)
        except Exception as error:
            self.failed.append(classify(error))
            if self.is_stopped:  # no failure of the run
                self.planned.failure.unlink(missing_ok=True)


def _reports(work: RunThread) -> Iterator[dict[str, Any]]:
    run = work.planned
    yield from _progress(run, work)
    if not run.done and not work.failed:
        raise RuntimeError("ended without a result and without a reason")
    failure = {FAILURE: work.failed[0]._asdict()} if work.failed else {}
    yield _results(run) | failure | {DONE: True}


def _progress(run: PlannedRun, work: threading.Thread) -> Iterator[dict[str, float]]:
    seen = Counter[str]()
    while work.is_alive():
        work.join(POLL)
        yield from new_reports(run, seen)


def new_reports(run: PlannedRun, seen: Counter[str]) -> Iterator[dict[str, float]]:
    """Yield the reports of new records: of the training, and of evaluations and their means while it goes on.

    seen: the step of the latest record, by prefix or name of its metrics; changed.
    """
    before = seen.copy()
    for log, prefix in logs(run):
        if (latest := tail(log)) is None or latest.step <= seen[prefix]:
            continue
        for record in records(log, committed=False):
            if record.step > seen[prefix]:
                seen[prefix] = record.step
                yield report_of(run, prefix, record)
    for name, curve in mean_curves(run).items() if seen != before else ():
        for step in (step for step in curve if step > seen[name]):
            seen[name] = step
            yield report_of(run, "", Record(step, 0, {name: curve[step]}))


def report_of(run: PlannedRun, prefix: str, record: Record) -> dict[str, float]:
    """Return the report of a record. prefix: of the names of its metrics."""
    assert run.pretrain
    latest = tail(run.pretrain.spool)  # a report may have waited for Tune
    reached, last = latest.step if latest else 0, record.step == run.steps
    step = record.step if prefix == f"{run.pretrain.space}/" else reached
    values = {} if last else {f"{prefix}{name}": value for name, value in record.values.items()}
    return report_at(run, step, {}, trained=reached >= run.steps) | values | {PART: PARTS * record.step / run.steps}


def report_at(run: PlannedRun, step: int, values: Mapping[str, float], *, trained: bool = False) -> dict[str, float]:
    """Return the report of a training step to Tune, its schedulers and stoppers."""
    done = {STEP: step, SAMPLES: step * run.run.train.batch, PART: PARTS * step / run.steps, TRAINED: trained}
    return done | {f"pretrain/{name}": value for name, value in values.items()}


def _results(run: PlannedRun) -> dict[str, float]:
    """Return the last report: the results, and the latest numbers of the training, which may be a search's metric."""
    latest = tail(run.pretrain.spool) if run.pretrain else None
    done = [stage for stage in run.stages if stage.done]
    results = {f"{stage.space}/{name}": value for stage in done for name, value in stage.result().items()}
    numbers = report_at(run, latest.step if latest else 0, latest.values if latest else {}, trained=True)
    return {**numbers, **results, **averages(run), ENDED: run.done}
