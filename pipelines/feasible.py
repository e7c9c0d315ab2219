"""What a run's settings and its data rule out between them, told before anything starts."""

from functools import lru_cache

import torch

from selfsup.encoder import build, check_images
from selfsup.errors import DataError, SpecError
from selfsup.evaluator import load as load_evaluator
from selfsup.method import load as load_method
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.sections import Backbone
from selfsup.spec import BASELINES
from selfsup.trunk import has_class_token
from selfsup.weights import content


def check(each: PlannedRun) -> None:
    """Raise SpecError where the encoder, the data or the length of training do not carry the method; DataError where
    labels would mean nothing. Both name the setting.
    """
    _check_backbone(each.run.method, each.run.backbone)
    _check_batch(each)
    _check_labels(each)
    if each.run.method not in BASELINES:
        _check_class_token(each.run.method, each.run.backbone)
        _check_clusters(each)
        _check_warmup(each)
    if each.val is not None:
        _check_classes(each.train, each.val)


def _check_class_token(method: str, backbone: Backbone) -> None:
    if load_method(method).class_token and not has_class_token(backbone):
        lacking = f"{method} learns on the class token, and {backbone.name} has none"
        raise SpecError(f"{lacking}; choose a ViT that has one, such as vit_small_patch16_224", "backbone.name")


def _check_backbone(method: str, backbone: Backbone) -> None:
    """Whether timm can make it, and it sees the images and has room for its weights."""
    if backbone.is_vit:
        _try(backbone.model_copy(update={"weights": None}))
    else:
        check_images(backbone, places=method not in BASELINES and "vit" not in load_method(method).backbones)
    if backbone.weights not in (None, "timm"):
        _try_weights(backbone, content(backbone.weights))


@lru_cache(maxsize=64)
def _try(backbone: Backbone) -> None:
    """Without memory."""
    with torch.device("meta"):
        build(backbone)


@lru_cache(maxsize=64)
def _try_weights(backbone: Backbone, version: str) -> None:  # noqa: ARG001 (what makes it another call)
    build(backbone)


def _check_batch(each: PlannedRun) -> None:
    run, train = each.run, each.train
    if run.stream.remainder == "drop" and run.train.batch > train.num_samples:
        raise SpecError(
            f"{run.train.batch} samples a step, but {train.root} holds {train.num_samples}, and stream.remainder: drop "
            "leaves out what does not fill a batch. Use a smaller batch, or remainder: wrap.",
            "train.batch",
            "data.train",
        )


def _check_clusters(each: "PlannedRun") -> None:
    clusters, train = getattr(each.run.hyper, "clusters", 0), each.train
    if clusters > train.num_samples:
        many = f"{clusters} clusters, but {train.root} holds {train.num_samples} samples"
        raise SpecError(f"{many}. Use fewer clusters.", "hyper.clusters", "data.train")


def _check_warmup(each: PlannedRun) -> None:
    order = each.order
    warmup = each.run.optim.warmup_steps(batch=order.batch, steps_per_epoch=order.steps_per_epoch)
    if warmup > each.steps:
        raise SpecError(
            f"{warmup:,} steps of warm-up are longer than the training, {each.steps:,} steps (train.duration); an "
            f"epoch of {each.train.root} has {order.steps_per_epoch:,}. Shorten it, or train longer.",
            "optim.warmup",
            "train.duration",
        )


def _check_labels(each: PlannedRun) -> None:
    """Where something learns from them, or is scored by them, there must be some, of several classes."""
    readers = [(name, f"evals.{name}") for name in each.evals]
    if each.run.method not in BASELINES and load_method(each.run.method).needs_labels:
        readers.append((each.run.method, "method"))
    held = {"data.train": each.train} | ({"data.val": each.val} if each.val and each.evals else {})
    for split, manifest in held.items() if readers else ():
        if not manifest.num_labelled:
            raise SpecError(
                f"{readers[-1][0]} needs labels, and none of the {manifest.num_samples:,} samples of {split} "
                f"({manifest.root}) has one: leave it out, or label them: a folder a class for `selfsup shards pack`",
                readers[-1][1],
            )
    if readers and len(each.train.classes) < 2:
        raise DataError(
            f"all labels of {each.train.root} are of one class, {each.train.classes[0]!r}: any guess is right, and "
            f"{readers[-1][0]} says nothing. Leave that out, or give data of several classes.",
            "data.train",
        )
    for name, hyper in each.evals.items():
        key, _, few = load_evaluator(name).lacks(hyper, each.train.num_labelled).partition(": ")
        if few:
            raise SpecError(few, key)


def _check_classes(train: Manifest, val: Manifest) -> None:
    """Labels of validation mean training's classes of the same names; it may lack some."""
    known = set(train.classes)
    if foreign := [name for name in val.classes if name not in known]:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise DataError(
            f"{val.root} has the class {foreign[0]!r}{more}, which none of the {len(known)} classes of data.train, "
            f"{train.root}, is called: its labels would mean nothing. Name classes alike in both: folders for "
            "`selfsup shards pack`, classnames.txt for `selfsup shards index`.",
            "data.val",
        )
