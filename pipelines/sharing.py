"""Runs that one stream can feed: they see the same crops in the same order, whatever their objectives."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from selfsup.input_kinds import views_of
from selfsup.method import load
from selfsup.pipelines.planned import PlannedRun
from selfsup.stage import digest


def stream_key(planned: PlannedRun) -> str | None:
    """Return a key that is equal for runs whose workers get the same columns at every step; None without sharing."""
    if planned.pretrain is None or planned.run.stream.share == "never":
        return None
    run = planned.run
    views = views_of(load(run.method).views(run.hyper), run.kinds, run.backbone)
    data: list[Any] = [planned.train.digest, planned.train.read_options.missing]
    data += [planned.learned.subset.identity] if planned.learned.subset else []
    crops = [crop.geometry for crop in views.specs]
    return digest([data, asdict(planned.order), crops, views.maps, run.worker_counts])


def group_by_stream(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return the runs that are not trained yet, one per pretrain stage, grouped by stream."""
    groups: defaultdict[str, list[PlannedRun]] = defaultdict(list)
    untrained = {run.pretrain.key: run for run in reversed(runs) if run.pretrain and not run.pretrain.done}
    for run in reversed(untrained.values()):
        groups[stream_key(run) or run.id].append(run)
    return list(groups.values())


def sort_by_stream(runs: Sequence[PlannedRun], at_once: int) -> list[PlannedRun]:
    """Return the runs in an order in which those of one stream start together, with their number as `peers`.

    at_once: number of runs executed at a time.
    """
    first: dict[str, int] = {}
    place = {run.id: first.setdefault(stream_key(run) or run.id, number) for number, run in enumerate(runs)}
    peers = {run.id: min(at_once, len(group)) for group in group_by_stream(runs) for run in group}
    return sorted((replace(run, peers=peers.get(run.id, 1)) for run in runs), key=lambda run: place[run.id])
