"""Means over the evaluations of a run, once it is trained and while it trains: numbers that no stage makes."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from selfsup import means
from selfsup.metrics_log import records

if TYPE_CHECKING:
    from selfsup.pipelines.planned import PlannedRun
    from selfsup.pipelines.summary import RunSummary


def averages(run: "PlannedRun | RunSummary") -> dict[str, float]:
    """Return the means of the evaluations that are done, by the names that MLflow has them under."""
    made = [stage for stage in run.probes.values() if stage.done] if run.means else []
    return means.values(run.means, flat({stage.space: stage.result() for stage in made}))


def mean_curves(run: "PlannedRun") -> dict[str, dict[int, float]]:
    """-> by name of a mean: its value by step, ascending, after which all evaluations that it is of were made"""
    if not (run.due and run.means):
        return {}
    numbers: dict[int, dict[str, float]] = defaultdict(dict)
    for stage in run.probes.values():
        for record in records(stage.spool):
            numbers[record.step] |= flat({stage.space: record.values})
    made = {step: means.values(run.means, numbers[step]) for step in sorted(numbers)}
    return {name: {step: values[name] for step, values in made.items() if name in values} for name in run.means}


def flat(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return metrics by the names that MLflow has them under. values: by the space of their stage."""
    return {f"{space}/{name}": value for space, own in values.items() for name, value in own.items()}
