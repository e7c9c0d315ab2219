"""The stages that draw pictures of an encoder: reconstructions, what it makes of samples, images of its features."""

from selfsup import codebase
from selfsup.method import Method, load
from selfsup.modality import MODALITIES
from selfsup.pipelines.keys import settings
from selfsup.spec import Run
from selfsup.stage import Stage

PICTURES, VISUALIZE, PAINT = (f"selfsup.pipelines.stages.{name}" for name in ("pictures", "visualize", "paint"))


def of_training(run: Run, pretrain: Stage | None, images: str) -> tuple[Stage, ...]:
    """Return the stages that draw what a training came to, none of a baseline. images: their digest.

    Reconstructions are of objectives that predict pixels, other pictures where the spec asks for them.
    """
    if pretrain is None:
        return ()
    kinds = [("pictures", PICTURES)] * (load(run.method).reconstruct is not Method.reconstruct)
    kinds += [("visualize", VISUALIZE)] * run.visualize
    made_of = {"pretrain": pretrain.key, "images": images}
    entries = f"{MODALITIES}.{run.modality}", codebase.entry("methods", run.method)
    return tuple(
        Stage(kind, made_of, made_of, pretrain.home, (module, *entries), after=(pretrain,)) for kind, module in kinds
    )


def painted(run: Run, features: Stage) -> Stage:
    """Return the stage that paints images from features."""
    made_of = settings(run, ["paint", "seed"], {"features": features.key})
    return Stage("paint", *made_of, features.home, (PAINT, f"{MODALITIES}.{run.modality}"), after=(features,))
