"""Checks of settings that act on models block by block, before anything starts."""

from selfsup.blank import without_memory
from selfsup.encoder import Encoder, build
from selfsup.errors import SpecError
from selfsup.method import load as load_method
from selfsup.outside import short
from selfsup.packed_crops import can_pack
from selfsup.parts.units import has_statistics, units
from selfsup.sections import InputShape
from selfsup.spec import Run

OFF = False, "none"


def check(run: Run, shape: InputShape) -> None:
    """Raise SpecError where the encoder has no blocks, or not such that all could be done that is asked for."""
    settings = ("checkpoint_activations", "compile", "pack_crops", "sharding")
    asked = [name for name in settings if getattr(run.train, name) not in OFF]
    if not asked:
        return
    with without_memory():
        encoder = build(run.backbone.model_copy(update={"weights": None}), shape=shape)
    blocks = units(encoder)
    if not blocks:
        message = f"{run.backbone.name} has no sequence of blocks, one by one of which this could be done; leave it out"
        raise SpecError(message, f"train.{asked[0]}", "backbone.name")
    if {"checkpoint_activations", "compile"} <= {*asked} and any(map(has_statistics, blocks)):
        message = "batch normalization cannot be compiled and computed once more; leave out one of the two"
        raise SpecError(message, "train.checkpoint_activations", "train.compile")
    if "pack_crops" in asked:
        _check_packing(run, encoder)
    if "sharding" in asked and not all(weight.is_contiguous() for weight in encoder.parameters()):
        message = f"weights of {run.backbone.name} are in channels-last order, which cannot be divided; leave it out"
        raise SpecError(message, "train.sharding", "backbone.name")


def _check_packing(run: Run, encoder: Encoder) -> None:
    if not load_method(run.method).packs:
        message = f"the views of {short(run.method)} do not differ in size, or are never joined; leave it out"
        raise SpecError(message, "train.pack_crops", "method")
    if not can_pack(encoder.trunk):
        message = f"the blocks of {run.backbone.name} are not those of a plain ViT, which alone take several sizes"
        raise SpecError(message, "train.pack_crops", "backbone.name")
    if run.train.accumulate > 1:
        message = "a step in pieces has no sequence of all crops; leave out one of the two"
        raise SpecError(message, "train.pack_crops", "train.accumulate")
