"""Loops of ten steps at the settings of the recipes for ImageNet."""

from collections.abc import Callable, Mapping

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.spec import read

from .ours import WARMUP, Loop, Trained


def of_recipe(
    name: str, reference: Callable[[Method, list[Batch]], Trained], backbone: str = "narrow cnn", **hyper: object
) -> Loop:
    """Return the loop of a recipe, with two steps of warm-up if it has one, and with two GPUs if these normalize apart.

    hyper: knobs beside the recipe's own.
    """
    spec = read(name if "/" in name else f"in1k/{name}")
    own: Mapping[str, object] = {knob: getattr(spec.hyper, knob) for knob in spec.hyper.model_fields_set}
    warmup, groups = WARMUP if spec.optim.warmup else 0, min(2, spec.train.norm_groups)
    sizes = {"batch": spec.train.batch, "warmup": warmup, "groups": groups}
    return Loop(spec.method, spec.optim, reference, dict(own) | hyper, backbone, **sizes)
