"""The stages that embed the data of a run's evaluations, and that score what they read."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from selfsup import codebase, outside
from selfsup.evaluations import Evaluation
from selfsup.feature_choice import Versions
from selfsup.modality import MODALITIES
from selfsup.pipelines import keys
from selfsup.spec import Run
from selfsup.stage import Settings, Stage

EVALUATE, VIEWS = "selfsup.pipelines.stages.evaluate", "selfsup.pipelines.stages.views"
VERSIONS = {kind: f"selfsup.pipelines.stages.versions.{kind}" for kind in get_args(Versions)}


def stage(kind: str, run: Run, home: Path, data: Settings, own: str, pretrain: Stage | None, name: str) -> Stage:
    """Lay out a stage that embeds data by the encoder of a run.

    data: what of it. own: the digest of the run's training data. pretrain: what trains the encoder. name: of the stage.
    """
    made_of = keys.embedding(run, data, own, pretrain)
    backbone = codebase.backbone_entry(run.backbone.name) if run.method == "untrained" else ()
    made_by = (VIEWS, VERSIONS[data.get("versions", "augmented")]) if kind == "views" else (EVALUATE,)
    entries = *made_by, f"{MODALITIES}.{run.modality}", *backbone
    return Stage(kind, *made_of, home, entries, (pretrain,) if pretrain else (), name)


def probe(evaluation: Evaluation, read: Sequence[Stage], seed: int, home: Path) -> Stage:
    """Lay out the stage of an evaluation. read: the stages of its features, and of versions of samples."""
    kind, made_of = outside.short(evaluation.use), keys.evaluation(evaluation, read, seed)
    name = "" if evaluation.name == kind else evaluation.name
    return Stage(kind, *made_of, home, (codebase.entry("evals", evaluation.use),), tuple(read), name)
