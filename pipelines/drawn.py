"""The stages that draw pictures of a training: reconstructions, and what its encoder makes of samples."""

from selfsup import codebase
from selfsup.method import Method, load
from selfsup.modality import MODALITIES
from selfsup.spec import Run
from selfsup.stage import Stage

PICTURES, VISUALIZE = (f"selfsup.pipelines.stages.{name}" for name in ("pictures", "visualize"))


def reconstructions(run: Run, pretrain: Stage | None, images: str) -> Stage | None:
    """Return the stage of the reconstructions; None for an objective that predicts no pixels. images: their digest."""
    if pretrain is None or load(run.method).reconstruct is Method.reconstruct:
        return None
    return _drawn("pictures", PICTURES, run, pretrain, images)


def visuals(run: Run, pretrain: Stage | None, images: str) -> Stage | None:
    """Return the stage of pictures of the encoder; None where the spec does not ask for them. images: their digest."""
    return _drawn("visualize", VISUALIZE, run, pretrain, images) if run.visualize and pretrain else None


def _drawn(kind: str, module: str, run: Run, pretrain: Stage, images: str) -> Stage:
    made_of = {"pretrain": pretrain.key, "images": images}
    entries = module, f"{MODALITIES}.{run.modality}", codebase.entry("methods", run.method)
    return Stage(kind, made_of, made_of, pretrain.home, entries, after=(pretrain,))
