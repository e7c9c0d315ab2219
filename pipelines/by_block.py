"""Checks of settings that act on models block by block, before anything starts."""

from selfsup.blank import without_memory
from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.parts.units import has_statistics, units
from selfsup.sections import InputShape
from selfsup.spec import Run

OFF = False, "none"


def check(run: Run, shape: InputShape) -> None:
    """Raise SpecError where the encoder has no blocks, or not such that all could be done that is asked for."""
    settings = ("checkpoint_activations", "compile", "sharding")
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
    if "sharding" in asked and not all(weight.is_contiguous() for weight in encoder.parameters()):
        message = f"weights of {run.backbone.name} are in channels-last order, which cannot be divided; leave it out"
        raise SpecError(message, "train.sharding", "backbone.name")
