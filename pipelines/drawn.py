"""The stages that draw pictures of an encoder: reconstructions, what it makes of samples, images of its features."""

from collections.abc import Mapping
from pathlib import Path

from selfsup import codebase
from selfsup.method import Method, load
from selfsup.modality import MODALITIES
from selfsup.pipelines.keys import embedding, settings
from selfsup.spec import Run
from selfsup.stage import Stage

PICTURES, VISUALIZE, PAINT = (f"selfsup.pipelines.stages.{name}" for name in ("pictures", "visualize", "paint"))


def of_encoder(
    run: Run, pretrain: Stage | None, images: Mapping[str, str], train: str, home: Path
) -> tuple[Stage, ...]:
    """Return the stages that draw what an encoder makes of images, or how raw samples lie.

    Reconstructions are of objectives that predict pixels, other pictures where the spec asks for them. pretrain: None
    of baselines. images: their digest, by the kind of stage. train: that of the data that they are normalized by.
    """
    if pretrain is None:
        return (_baseline(run, images["visualize"], train, home),) if run.visualize else ()
    method = load(run.method)
    paints = method.reconstruct is not Method.reconstruct or method.paintings is not Method.paintings
    kinds = [("pictures", PICTURES)] * paints
    kinds += [("visualize", VISUALIZE)] * run.visualize
    made_of = {kind: {"pretrain": pretrain.key, "images": digest} for kind, digest in images.items()}
    entries = f"{MODALITIES}.{run.modality}", codebase.entry("methods", run.method)
    return tuple(
        Stage(kind, made_of[kind], made_of[kind], pretrain.home, (module, *entries), after=(pretrain,))
        for kind, module in kinds
    )


def _baseline(run: Run, images: str, train: str, home: Path) -> Stage:
    made_of = embedding(run, {"train": train, "images": images}, train, None)
    backbone = codebase.backbone_entry(run.backbone.name) if run.method == "untrained" else ()
    return Stage("visualize", *made_of, home, (VISUALIZE, f"{MODALITIES}.{run.modality}", *backbone))


def painted(run: Run, features: Stage) -> Stage:
    """Return the stage that paints images from features."""
    made_of = settings(run, ["paint", "seed"], {"features": features.key})
    return Stage("paint", *made_of, features.home, (PAINT, f"{MODALITIES}.{run.modality}"), after=(features,))
