"""What a run's settings and its data rule out between them, told before anything starts."""

from functools import lru_cache
from typing import TYPE_CHECKING

from selfsup.encoder import build, check_images
from selfsup.errors import DataError, SpecError
from selfsup.evaluator import load as load_evaluator
from selfsup.method import load as load_method
from selfsup.pipelines.manifest import Manifest
from selfsup.sections import Backbone
from selfsup.spec import BASELINES
from selfsup.trunk import has_class_token
from selfsup.weights import content

if TYPE_CHECKING:
    from selfsup.planning import Planned


def check(each: "Planned") -> None:
    """Raise SpecError where the encoder, the data or the length of training do not carry the method; DataError where
    labels would mean nothing.
    """
    _check_backbone(each)
    _check_batch(each)
    _check_labels(each)
    if each.run.method not in BASELINES:
        _check_class_token(each)
        _check_clusters(each)
        _check_warmup(each)
    if each.val is not None:
        _check_classes(each.spec, each.train, each.val)


def _check_class_token(each: "Planned") -> None:
    method, backbone = each.run.method, each.run.backbone
    if load_method(method).class_token and not has_class_token(backbone):
        raise SpecError(
            f"{each.spec}: backbone.name: {method} learns on the class token, and {backbone.name} has none; choose a "
            "ViT that has one, such as vit_small_patch16_224"
        )


def _check_backbone(each: "Planned") -> None:
    """Whether it sees the images, and has room for its weights."""
    method, backbone = each.run.method, each.run.backbone
    try:
        if not backbone.is_vit:
            check_images(backbone, places=method not in BASELINES and "vit" not in load_method(method).backbones)
        if backbone.weights not in (None, "timm"):
            _try_weights(backbone, content(backbone.weights))
    except SpecError as error:
        raise SpecError(f"{each.spec}: {error}") from error


@lru_cache(maxsize=64)
def _try_weights(backbone: Backbone, version: str) -> None:  # noqa: ARG001 (what makes it another call)
    build(backbone)


def _check_batch(each: "Planned") -> None:
    run, train = each.run, each.train
    if run.stream.remainder == "drop" and run.train.batch > train.num_samples:
        raise SpecError(
            f"{each.spec}: train.batch: {run.train.batch} samples a step, but {train.root} holds {train.num_samples}, "
            "and stream.remainder: drop leaves out what does not fill a batch. Use a smaller batch, or remainder: wrap."
        )


def _check_clusters(each: "Planned") -> None:
    clusters = getattr(each.run.hyper, "clusters", 0)
    if clusters > each.train.num_samples:
        raise SpecError(
            f"{each.spec}: hyper.clusters: {clusters} clusters, but {each.train.root} holds {each.train.num_samples} "
            "samples. Use fewer clusters."
        )


def _check_warmup(each: "Planned") -> None:
    order = each.order
    warmup = each.run.optim.warmup_steps(batch=order.batch, steps_per_epoch=order.steps_per_epoch)
    if warmup > each.steps:
        raise SpecError(
            f"{each.spec}: optim.warmup: {warmup:,} steps of warm-up are longer than the training, {each.steps:,} "
            f"steps (train.duration); an epoch of {each.train.root} has {order.steps_per_epoch:,}. Shorten it, or "
            "train longer."
        )


def _check_labels(each: "Planned") -> None:
    """Where something learns from them, or is scored by them, there must be some, of several classes."""
    readers = [f"evals.{name}" for name in each.evals]
    if each.run.method not in BASELINES and load_method(each.run.method).needs_labels:
        readers.append(f"method: {each.run.method}")
    held = {"data.train": each.train} | ({"data.val": each.val} if each.val and each.evals else {})
    for split, manifest in held.items() if readers else ():
        if not manifest.num_labelled:
            raise SpecError(
                f"{each.spec}: {readers[-1]} needs labels, and none of the {manifest.num_samples:,} samples of {split} "
                f"({manifest.root}) has one: leave it out, or label them: a folder a class for `selfsup shards pack`"
            )
    if readers and len(each.train.classes) < 2:
        raise DataError(
            f"{each.spec}: all labels of data.train, {each.train.root}, are of one class, {each.train.classes[0]!r}: "
            f"any guess is right, and {readers[-1]} says nothing. Leave it out, or give data of several classes."
        )
    for name, hyper in each.evals.items():
        if few := load_evaluator(name).lacks(hyper, each.train.num_labelled):
            raise SpecError(f"{each.spec}: {few}")


def _check_classes(spec: str, train: Manifest, val: Manifest) -> None:
    """Labels of validation mean training's classes of the same names; it may lack some."""
    known = set(train.classes)
    if foreign := [name for name in val.classes if name not in known]:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise DataError(
            f"{spec}: data.val: {val.root} has the class {foreign[0]!r}{more}, which none of the {len(known)} classes "
            f"of data.train, {train.root}, is called: its labels would mean nothing. Name classes alike in both: "
            "folders for `selfsup shards pack`, classnames.txt for `selfsup shards index`."
        )
