"""One run as a Tune trial: the driver of one Ray Train run, and of the stages around it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ray import tune

from selfsup.pipelines.runner import perform, quiet
from selfsup.planning import Planned
from selfsup.spool import tail

POLL = 0.5  # seconds between looks at how far training is
STEP, SAMPLES = "step", "samples"  # of every report: what of the training is done, restarts or not


class Plans(Protocol):
    """What a trial's configuration stands for."""

    def of(self, config: Mapping[str, Any]) -> Planned: ...


def trial(config: dict[str, Any], plans: Plans) -> None:
    """Report every record of the training, then the results. A failure that is noted ends the trial without an error.

    Tune starts one anew that dies without having noted why.
    """
    quiet()
    each = plans.of(config)
    work = threading.Thread(target=_perform, args=(each,), daemon=True)  # daemon: a trial that is stopped must end
    work.start()
    for report in _progress(each, work):
        tune.report(report)
    if not each.done and not each.failure.exists():
        raise RuntimeError("ended without a result and without a reason")
    tune.report(_results(each))


def _perform(each: Planned) -> None:
    with suppress(Exception):  # noted in each.failure
        perform(each)


def _progress(each: Planned, work: threading.Thread) -> Iterator[dict[str, float]]:
    seen = 0
    while work.is_alive():
        work.join(POLL)
        record = tail(each.pretrain.spool) if each.pretrain else None
        if record and record.step > seen:
            seen = record.step
            numbers = {f"pretrain/{name}": value for name, value in record.values.items()}
            yield {STEP: seen, SAMPLES: seen * each.run.train.batch, **numbers}


def _results(each: Planned) -> dict[str, float]:
    done = [stage for stage in each.stages if stage.done]
    results = {f"{stage.space}/{name}": value for stage in done for name, value in stage.result().items()}
    return {STEP: each.steps, SAMPLES: each.steps * each.run.train.batch, **results}
