"""Which runs one stream can feed: those that see the same crops in the same order, whatever is made of these then."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from selfsup.method import load
from selfsup.pipelines.planned import PlannedRun
from selfsup.progress import several
from selfsup.stage import digest
from selfsup.views import sized


def key(each: PlannedRun) -> str | None:
    """Equal for runs whose workers are handed the same columns, step for step; None for a run that shares nothing."""
    if each.pretrain is None or each.run.stream.share == "never":
        return None
    run = each.run
    crops = sized(load(run.method).views(run.hyper), run.backbone.image_size).crops
    data = [each.train.digest, each.train.access.missing]
    return digest([data, asdict(each.order), [crop.geometry for crop in crops], run.resources.workers])


def groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Those that have still to be trained, by their streams."""
    found: defaultdict[str, list[PlannedRun]] = defaultdict(list)
    trained = {each.pretrain.key: each for each in reversed(runs) if each.pretrain and not each.pretrain.done}
    for each in reversed(trained.values()):
        found[key(each) or each.id].append(each)
    return list(found.values())


def side_by_side(runs: Sequence[PlannedRun], at_once: int) -> list[PlannedRun]:
    """In an order in which those of one stream start together, and told how many these are.

    at_once: runs that are under way at any time.
    """
    first: dict[str, int] = {}
    place = {each.id: first.setdefault(key(each) or each.id, number) for number, each in enumerate(runs)}
    peers = {each.id: min(at_once, len(group)) for group in groups(runs) for each in group}
    return sorted((replace(each, peers=peers.get(each.id, 1)) for each in runs), key=lambda each: place[each.id])


def describe(runs: Sequence[PlannedRun]) -> Iterator[str]:
    """The line of a plan that says so, where it is so."""
    found = groups(runs)
    shared = sum(len(group) for group in found if len(group) > 1)
    if shared:
        of = sum(len(group) > 1 for group in found)
        yield f"  {shared} runs of {several(of, 'stream')}: those of one that train at the same time are fed by one"
