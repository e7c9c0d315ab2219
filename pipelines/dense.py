"""Requirements of dense evaluations: maps beside the images, and raw images as squares of the size of tokens."""

import math
from collections.abc import Mapping, Sequence

from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation
from selfsup.evaluator import DENSE
from selfsup.outside import short
from selfsup.pipelines.data.manifest import Manifest
from selfsup.sections import Backbone
from selfsup.spec import Run


def places_side(backbone: Backbone) -> int:
    """Return the pixels a side of the squares that raw images are read by: an encoder's patches, else at most 16."""
    return backbone.patch or math.gcd(backbone.image_size, 16)


def check_learned(run: Run, train: Manifest, maps: Sequence[str]) -> None:
    """Raise SpecError where training samples lack the maps that a method learns from."""
    name = short(run.method)
    if maps and run.modality != "image":
        raise SpecError(f"{name} learns from maps of images, and the run is of {run.modality}", "method", "input")
    if missing := _missing([name for name in maps if name not in train.lacking], train):
        remedy = "give it data with such maps; shards that hold them are indexed by `selfsup shards index`"
        raise SpecError(f"{name} needs {missing}, and {train.root} has none: {remedy}", "method", "data.train")


def check_maps(run: Run, evaluation: Evaluation, splits: Mapping[str, Manifest], paths: Mapping[str, str]) -> None:
    """Raise SpecError where samples lack the maps that an evaluation reads, or are too few. paths: of settings."""
    name, target = evaluation.name, evaluation.evaluator.target
    assert target in DENSE, f"{name} reads no maps"
    if run.modality != "image":
        raise SpecError(f"{name} reads maps of images, and the run is of {run.modality}", f"evals.{name}")
    for use, manifest in splits.items():
        if missing := _missing(DENSE[target], manifest):
            lack = f"{name} needs {missing}, and {paths[use]} ({manifest.root}) has none"
            remedy = (
                f"leave it out, or give it data with such maps (evals.{name}.data); shards that hold them are indexed"
            )
            raise SpecError(f"{lack}: {remedy} by `selfsup shards index`", f"evals.{name}", paths[use])
    if few := evaluation.evaluator.lacks(evaluation.hyper, splits["train"].num_samples, 0):
        raise SpecError(few.message, f"evals.{name}.{few.knob}".rstrip("."))


def _missing(maps: Sequence[str], manifest: Manifest) -> str:
    """Return which maps samples do not have, in words; "" where they have all."""
    lacking = [f".{name}.png" for name in maps if name not in manifest.annotations]
    return f"{' and '.join(lacking)} beside each image" if lacking else ""
