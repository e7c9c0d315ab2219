"""Settings that are fine one by one and wrong together; and settings that nothing would read."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from selfsup import evaluations
from selfsup.errors import SpecError
from selfsup.knob import Knobs
from selfsup.layers import placed
from selfsup.sections import Backbone, Data, Optim, Resources, Setup, Stream, Train
from selfsup.source import Node, Problem


class Conflict(NamedTuple):
    """paths: the keys that could be at fault, the likeliest first."""

    paths: tuple[str, ...]
    message: str


def problems(sections: Mapping[str, Any], root: Node) -> Iterator[Problem]:
    """Every check whose arguments, sections by name, are all there."""
    for check in CHECKS:
        needs = inspect.signature(check).parameters
        if needs.keys() <= sections.keys():
            for conflict in check(**{name: sections[name] for name in needs}):
                yield placed(root, *conflict)


def _batch_over_lanes(train: Train, stream: Stream) -> Iterator[Conflict]:
    batch, lanes = train.batch, stream.lanes
    if batch % lanes:
        near = " or ".join(str(n) for n in (batch // lanes * lanes, (batch // lanes + 1) * lanes) if n)
        message = f"a batch of {batch} (train.batch) does not divide over {lanes} lanes (stream.lanes); {near} would"
        yield Conflict(("train.batch", "stream.lanes"), message)


def _lanes_over_workers(stream: Stream, resources: Resources) -> Iterator[Conflict]:
    lanes, workers = stream.lanes, resources.workers
    paths = ("resources.workers", "stream.lanes")
    if workers > lanes:
        message = f"more workers than lanes: {workers} workers, {lanes} lanes (stream.lanes); each needs one or more"
        yield Conflict(paths, message)
    elif lanes % workers:
        fitting = ", ".join(str(n) for n in range(1, lanes + 1) if lanes % n == 0)
        message = f"{lanes} lanes (stream.lanes) do not divide over {workers} workers; {fitting} would"
        yield Conflict(paths, message)


def _share_over_pieces(train: Train, resources: Resources) -> Iterator[Conflict]:
    share, rest = divmod(train.batch, resources.workers)
    if not rest and share % train.accumulate:
        message = f"a worker's {share} samples a step do not divide into {train.accumulate} equal pieces"
        yield Conflict(("train.accumulate", "train.batch", "resources.workers"), message)


def _warmup_in_duration(optim: Optim, train: Train) -> Iterator[Conflict]:
    if optim.warmup is None:
        return
    for unit in type(train.duration).model_fields:
        warmup, duration = getattr(optim.warmup, unit), getattr(train.duration, unit)
        if warmup and duration and warmup > duration:
            message = f"{warmup:g} {unit} of warm-up are longer than the training: {duration:g} {unit}"
            yield Conflict((f"optim.warmup.{unit}",), message)


def _evals_have_data(data: Data, evals: Knobs) -> Iterator[Conflict]:
    lacking = [name for name, evaluation in evaluations.listed(evals).items() if not (evaluation.data.val or data.val)]
    if lacking:
        yield Conflict(("evals",), f"{' and '.join(lacking)} cannot score without data.val, the validation shards")


def _known(backbone: Backbone) -> Iterator[Conflict]:
    if problem := backbone.unknown:
        yield Conflict(("backbone.name",), problem)


def _kind(backbones: Collection[str], method: str, backbone: Backbone) -> Iterator[Conflict]:
    if backbone.unknown:
        return
    if backbone.is_vit and "vit" not in backbones:
        message = f"{method} reads feature maps, which {backbone.name}, a plain ViT, has none of; choose a CNN or Swin"
        yield Conflict(("backbone.name", "method"), message)
    if not backbone.is_vit and "cnn" not in backbones:
        message = f"{method} works on tokens, which {backbone.name} does not take; choose a plain ViT"
        yield Conflict(("backbone.name", "method"), message)


def _patches(backbone: Backbone) -> Iterator[Conflict]:
    size, patch = backbone.image_size, backbone.patch_size
    if patch and backbone.is_vit and size % patch:
        message = f"images of {size} pixels (backbone.image_size) do not divide into patches of {patch}"
        yield Conflict(("backbone.patch_size",), message)


def _knobs_of_the_method(
    check: Callable[..., Iterator[SpecError]], hyper: Knobs, backbone: Backbone, train: Train, resources: Resources
) -> Iterator[Conflict]:
    """Yield what `Method.check` says."""
    for error in check(hyper, Setup(backbone, train, resources)):
        yield Conflict(error.paths, error.bare)


def _least_below_most(hyper: Knobs) -> Iterator[Conflict]:
    """Of knobs such as local_min and local_max."""
    for name, least in hyper:
        stem = name.removesuffix("_min")
        most = getattr(hyper, f"{stem}_max", None)
        if name != stem and most is not None and least > most:
            message = f"the least, {least:g} (hyper.{name}), is more than the most, {most:g} (hyper.{stem}_max)"
            yield Conflict((f"hyper.{name}", f"hyper.{stem}_max"), message)


def _backbone_effect(backbone: Backbone) -> Iterator[Conflict]:
    if backbone.unknown:
        return
    if backbone.is_vit:
        yield from _without_effect("backbone", backbone, {"stem"}, f"on {backbone.name}, a plain ViT")
    else:
        vit_only = {"patch_size", "depth", "heads", "positions", "pool"}
        yield from _without_effect("backbone", backbone, vit_only, f"on {backbone.name}, which is no plain ViT")


def _optim_effect(optim: Optim) -> Iterator[Conflict]:
    idle = {"adamw": {"momentum", "trust"}, "sgd": {"betas", "trust"}, "lars": {"betas"}}[optim.name]
    yield from _without_effect("optim", optim, idle, f"with optim.name: {optim.name}")
    if optim.lr_rule == "none":
        yield from _without_effect("optim", optim, {"lr_batch"}, "with optim.lr_rule: none")


def _without_effect(section: str, knobs: Knobs, idle: set[str], why: str) -> Iterator[Conflict]:
    for name in sorted(idle & knobs.model_fields_set):
        if getattr(knobs, name) is not None:  # null takes back what an extended spec says
            yield Conflict((f"{section}.{name}",), f"has no effect {why}; leave it out")


CHECKS: tuple[Callable[..., Iterator[Conflict]], ...] = (
    _batch_over_lanes,
    _lanes_over_workers,
    _share_over_pieces,
    _warmup_in_duration,
    _evals_have_data,
    _known,
    _kind,
    _patches,
    _knobs_of_the_method,
    _least_below_most,
    _backbone_effect,
    _optim_effect,
)
