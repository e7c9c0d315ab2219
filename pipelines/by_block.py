"""Checks of settings that act on models block by block, before anything starts."""

from selfsup.blank import without_memory
from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.parts.units import has_statistics, units
from selfsup.sections import InputShape
from selfsup.spec import Run


def check(run: Run, shape: InputShape) -> None:
    """Raise SpecError where the encoder has no blocks, or not such that all could be done that is asked for."""
    asked = [name for name in ("checkpoint_activations", "compile") if getattr(run.train, name)]
    if not asked:
        return
    with without_memory():
        blocks = units(build(run.backbone.model_copy(update={"weights": None}), shape=shape))
    if not blocks:
        message = f"{run.backbone.name} has no sequence of blocks, one by one of which this could be done; leave it out"
        raise SpecError(message, f"train.{asked[0]}", "backbone.name")
    if len(asked) > 1 and any(map(has_statistics, blocks)):
        message = "batch normalization cannot be compiled and computed once more; leave out one of the two"
        raise SpecError(message, *(f"train.{name}" for name in asked))
