"""Checks for settings that are valid one by one but not together, or that have no effect."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selfsup import evaluations, input_kinds, modality
from selfsup.errors import SpecError
from selfsup.knob import Knobs
from selfsup.layers import placed
from selfsup.sections import Backbone, Data, Optim, Paint, Setup, Stream, Train
from selfsup.source import Node, Problem


class Conflict(NamedTuple):
    """A conflict between settings. paths: of the keys involved, the likeliest cause first."""

    paths: tuple[str, ...]
    message: str


def problems(sections: Mapping[str, Any], root: Node) -> Iterator[Problem]:
    """Yield the problems of all checks whose arguments, sections by name, are valid."""
    cases = _cases(sections)
    for check in CHECKS:
        names = inspect.signature(check).parameters
        if names.keys() <= cases[0].keys():
            conflicts = ([*check(**{name: case[name] for name in names})] for case in cases)
            for conflict in next(filter(None, conflicts), ()):
                yield placed(root, *conflict)


def _cases(sections: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sections with each number of workers that a run may have."""
    if "resources" not in sections:
        return [sections]
    lanes = sections["stream"].lanes if "stream" in sections else 1
    return [{**sections, "workers": workers} for workers in sections["resources"].counts(lanes)]


def _batch_over_lanes(train: Train, stream: Stream) -> Iterator[Conflict]:
    batch, lanes = train.batch, stream.lanes
    if batch % lanes:
        valid = " or ".join(str(n) for n in (batch // lanes * lanes, (batch // lanes + 1) * lanes) if n)
        message = f"a batch of {batch} (train.batch) does not divide into {lanes} lanes (stream.lanes); {valid} would"
        yield Conflict(("train.batch", "stream.lanes"), message)


def _lanes_over_workers(stream: Stream, workers: int) -> Iterator[Conflict]:
    lanes = stream.lanes
    paths = ("resources.workers", "stream.lanes")
    if workers > lanes:
        message = f"more workers than lanes: {workers} workers, {lanes} lanes (stream.lanes); each needs at least one"
        yield Conflict(paths, message)
    elif lanes % workers:
        valid = ", ".join(str(n) for n in range(1, lanes + 1) if lanes % n == 0)
        message = f"{lanes} lanes (stream.lanes) do not divide over {workers} workers; {valid} would"
        yield Conflict(paths, message)


def _share_over_pieces(train: Train, workers: int) -> Iterator[Conflict]:
    share, rest = divmod(train.batch, workers)
    if not rest and share % train.accumulate:
        message = f"a worker's {share} samples per step do not divide into {train.accumulate} equal pieces"
        yield Conflict(("train.accumulate", "train.batch", "resources.workers"), message)


def _norm_groups(train: Train, stream: Stream, workers: int) -> Iterator[Conflict]:
    groups = train.norm_groups
    if groups > 1 and stream.lanes % groups:
        message = f"{stream.lanes} lanes (stream.lanes) do not divide into {groups} groups (train.norm_groups)"
        yield Conflict(("train.norm_groups", "stream.lanes"), message)
    elif groups % workers and workers % groups:
        message = (
            f"{groups} groups (train.norm_groups) over {workers} workers: one of the numbers must divide the other"
        )
        yield Conflict(("train.norm_groups", "resources.workers"), message)
    if groups > 1 and train.accumulate > 1:
        message = (
            "pieces of a batch (train.accumulate) are batch-normalized apart as they are; leave out one of the two"
        )
        yield Conflict(("train.norm_groups", "train.accumulate"), message)


def _warmup_in_duration(optim: Optim, train: Train) -> Iterator[Conflict]:
    if optim.warmup is None:
        return
    for unit in type(train.duration).model_fields:
        warmup, duration = getattr(optim.warmup, unit), getattr(train.duration, unit)
        if warmup and duration and warmup > duration:
            message = f"a warmup of {warmup:g} {unit} is longer than the training of {duration:g} {unit}"
            yield Conflict((f"optim.warmup.{unit}",), message)


def _evals_have_data(data: Data, evals: Knobs) -> Iterator[Conflict]:
    for name, evaluation in evaluations.listed(evals).items():
        if not (evaluation.data.val or data.val):
            message = f"{name} cannot score without data.val, the validation shards; give them, or some of its own "
            yield Conflict(
                (f"evals.{name}",), f"{message}({name}: {{data: {{val: ...}}}}), or leave it out ({name}: null)"
            )


def _means_exist(evals: Knobs) -> Iterator[Conflict]:
    for name, why in evaluations.unfit_means(evals):
        yield Conflict((f"evals.means.{name}",), why)


def _painted(paint: Paint, data: Data, input: Knobs, beside: Sequence[str]) -> Iterator[Conflict]:  # noqa: A002, ARG001
    kind = input_kinds.chosen(input, beside).name
    if kind != "image":
        yield Conflict(("paint", "input"), f"it paints images, and the run is of {kind}; leave it out (paint: null)")
    elif not data.val:
        message = "it paints validation images, and there are none; give data.val, or leave it out (paint: null)"
        yield Conflict(("paint", "data.val"), message)


def _one_input(input: Knobs, beside: Collection[str]) -> Iterator[Conflict]:  # noqa: A002 (the name of the section)
    """Yield a conflict where samples are of several modalities, none of which a method reads beside another."""
    own = [name for name in modality.names() if getattr(input, name, None) is not None and name not in beside]
    if len(own) > 1:
        message = f"the backbone of a run reads one kind of data, not {' and '.join(own)}"
        yield Conflict((f"input.{own[1]}",), message)


def _read_beside(beside: Collection[str], one_trunk: bool, method: str, input: Knobs) -> Iterator[Conflict]:  # noqa: A002
    """Yield a conflict for each companion that a method does not read, and each knob of an encoder that has none."""
    for name in modality.companions():
        given = getattr(input, name)
        if given is not None and name not in beside:
            yield Conflict((f"input.{name}", "method"), f"{method} reads no {name} beside its samples; leave it out")
        elif given is not None and one_trunk:
            for knob in modality.load(name).tower_knobs:
                if knob in given.model_fields_set:
                    message = f"{method} reads {name} by its backbone, so {knob} changes nothing; leave it out"
                    yield Conflict((f"input.{name}.{knob}", "method"), message)


def _towers(
    towers: Knobs, beside: Collection[str], one_trunk: bool, method: str, backbones: Collection[str]
) -> Iterator[Conflict]:
    """Yield a conflict for each tower that no method reads anything with, or that cannot be."""
    for name, backbone in towers:
        if backbone is None:
            continue
        if one_trunk or name not in beside:
            yield Conflict((f"towers.{name}", "method"), f"{method} has no encoder of {name} by itself; leave it out")
        elif problem := backbone.unknown:
            yield Conflict((f"towers.{name}.name",), problem)
        elif problem := _unfit(backbones, method, backbone):
            yield Conflict((f"towers.{name}.name", "method"), problem)


def _known(backbone: Backbone) -> Iterator[Conflict]:
    if problem := backbone.unknown:
        yield Conflict(("backbone.name",), problem)


def _kind(backbones: Collection[str], mask_units: bool, method: str, backbone: Backbone) -> Iterator[Conflict]:
    is_fit = backbone.unknown or (mask_units and backbone.is_hiera)
    if not is_fit and (problem := _unfit(backbones, method, backbone)):
        yield Conflict(("backbone.name", "method"), problem)


def _unfit(backbones: Collection[str], method: str, backbone: Backbone) -> str:
    """Return why a method cannot train an encoder, which is a known one; "" where it can."""
    if ("vit" if backbone.is_vit else "cnn") in backbones:
        return ""
    if backbone.is_vit:
        return f"{method} reads feature maps, which {backbone.name}, a plain ViT, has none of; choose a CNN or Swin"
    if backbone.is_hiera:
        message = f"{method} works on all tokens of a plain ViT, and {backbone.name} can only leave out mask units"
        return f"{message}; choose a plain ViT, or mae"
    return f"{method} works on tokens, which {backbone.name} does not take; choose a plain ViT"


def _patches(
    input: Knobs,  # noqa: A002 (the name of the section)
    backbone: Backbone,
    beside: Sequence[str],
    towers: Knobs,
) -> Iterator[Conflict]:
    kinds = input_kinds.chosen(input, beside)
    shape = input_kinds.shape_of(kinds, backbone, channels=0)
    if backbone.patch_size and backbone.is_vit and (problem := shape.undivided(backbone.patch_size)):
        yield Conflict(("backbone.patch_size", "backbone.image_size"), problem)
    for name in beside:
        tower = getattr(towers, name, None)
        if tower and tower.patch_size and not tower.unknown and tower.is_vit:
            shape = input_kinds.shape_beside(name, kinds._replace(towers={name: tower}), tower, channels=0)
            if problem := shape.undivided(tower.patch_size):
                yield Conflict((f"towers.{name}.patch_size", f"input.{name}"), problem)


def _knobs_of_the_method(
    check: Callable[..., Iterator[SpecError]],
    hyper: Knobs,
    input: Knobs,  # noqa: A002 (the name of the section)
    backbone: Backbone,
    train: Train,
    workers: int,
    beside: Sequence[str],
    towers: Knobs,
) -> Iterator[Conflict]:
    """Yield the conflicts that `Method.check` finds."""
    kinds = input_kinds.chosen(input, beside)
    shape = input_kinds.shape_of(kinds, backbone, channels=0)
    others = {name: input_kinds.shape_beside(name, kinds, backbone, channels=0) for name in kinds.beside}
    given = {name: tower for name, tower in towers if tower is not None and not tower.unknown}
    setup = Setup(backbone, train, workers, shape.sizes, shape.leading, kinds.name, others, given)
    for error in check(hyper, setup):
        yield Conflict(error.paths, error.bare)


def min_below_max(hyper: Knobs) -> Iterator[Conflict]:
    """Yield conflicts of pairs of knobs such as local_min and local_max."""
    for name, low in hyper:
        stem = name.removesuffix("_min")
        high = getattr(hyper, f"{stem}_max", None)
        if name != stem and high is not None and low > high:
            message = f"the minimum {low:g} (hyper.{name}) exceeds the maximum {high:g} (hyper.{stem}_max)"
            yield Conflict((f"hyper.{name}", f"hyper.{stem}_max"), message)


def _backbone_effect(backbone: Backbone) -> Iterator[Conflict]:
    for name, why in sorted(backbone.idle.items()) if not backbone.unknown else ():
        yield from _without_effect("backbone", backbone, {name}, why)


def _optim_effect(optim: Optim) -> Iterator[Conflict]:
    lars = {"trust", "lars_form"}
    idle = {"adamw": lars | {"momentum"}, "sgd": lars | {"betas"}, "lars": {"betas", "decay_all"}}[optim.name]
    yield from _without_effect("optim", optim, idle, f"with optim.name: {optim.name}")
    if optim.warmup is None:
        yield from _without_effect("optim", optim, {"warmup_lr"}, "without optim.warmup")
    if optim.drops:
        yield from _without_effect("optim", optim, {"min_lr"}, "with optim.drops")
    else:
        yield from _without_effect("optim", optim, {"drop_factor"}, "without optim.drops")
    if optim.lr_rule == "none":
        yield from _without_effect("optim", optim, {"lr_batch"}, "with optim.lr_rule: none")


def _without_effect(section: str, knobs: Knobs, idle: set[str], why: str) -> Iterator[Conflict]:
    for name in sorted(idle & knobs.model_fields_set):
        if getattr(knobs, name) is not None:  # null resets the value of an extended spec
            yield Conflict((f"{section}.{name}",), f"has no effect {why}; leave it out")


CHECKS: tuple[Callable[..., Iterator[Conflict]], ...] = (
    _batch_over_lanes,
    _lanes_over_workers,
    _share_over_pieces,
    _norm_groups,
    _warmup_in_duration,
    _evals_have_data,
    _means_exist,
    _painted,
    _one_input,
    _read_beside,
    _towers,
    _known,
    _kind,
    _patches,
    _knobs_of_the_method,
    min_below_max,
    _backbone_effect,
    _optim_effect,
)
