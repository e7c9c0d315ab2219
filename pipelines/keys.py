"""The settings of a run as the keys of its stages are made of them, and as MLflow shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from selfsup import codebase, input_kinds, outside
from selfsup.augmentation import OwnAugmentation
from selfsup.evaluations import Evaluation
from selfsup.knob import as_dict, identity, non_default
from selfsup.modality import load
from selfsup.outside_backbone import portable
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.dense import places_side
from selfsup.sections import Backbone
from selfsup.settings import flatten
from selfsup.spec import Run
from selfsup.stage import Settings, Stage
from selfsup.weights import content


def settings(run: Run, parts: list[str], extra: Settings) -> tuple[Settings, Settings]:
    """Return what the key of a stage is made of, and all that is kept beside its result.

    parts: sections of the spec that it depends on; of kinds of data other than images, and of a method that reads some
    beside these, `input` is another. extra: more.
    """
    changed, full = (_by_content(run, sections) for sections in (non_default(run), identity(run)))
    is_read = run.modality != "image" or ("method" in parts and run.beside)
    has_towers = "method" in parts and run.kinds.towers
    parts = [*parts, *(["input"] if is_read else []), *(["towers"] if has_towers else [])]
    key = {part: changed[part] for part in parts if part in changed} | dict(extra)
    return key, {part: full[part] for part in parts} | dict(extra)


def embedding(run: Run, data: Settings, own: str, pretrain: Stage | None) -> tuple[Settings, Settings]:
    """Return the same of a stage that embeds data. data: what of it. own: the digest of the run's training data."""
    extra = {**data, "method": outside.short(run.method)}
    if pretrain:
        return settings(run, ["embed"], extra | {"pretrain": pretrain.key})
    if run.method == "untrained":
        normalized_by = {"normalized_by": own} if data.get("train") != own else {}
        extra |= codebase.backbone_digest(run.backbone.name) | normalized_by
        return settings(run, ["embed", "backbone", "seed"], extra)
    size = {"image_size": run.backbone.image_size} if run.modality == "image" else {}
    size |= {"places": places_side(run.backbone)} if data.get("squashed") else {}
    return settings(run, ["embed"], extra | size)


def given(run: Run) -> Settings:
    """Return what a frozen encoder depends on, whose weights a spec gives, as a part of keys."""
    return settings(run, ["backbone"], codebase.backbone_digest(run.backbone.name))[0]


def training_data(train: Manifest, by: Manifest | None) -> dict[str, Any]:
    """Return training data as a part of keys. by: the data by whose statistics they are normalized; None: their own."""
    own = {"data": train.digest} | (train.subset.identity if train.subset else {})
    return own | ({"normalized_by": by.digest} if by and by.digest != train.digest else {})


def code(train: Manifest) -> tuple[str, ...]:
    """Return the modules that choose the training samples, where these are a part of a data set."""
    return (f"{codebase.PACKAGE}.pipelines.data.subset",) if train.subset else ()


def evaluation(evaluation: Evaluation, embedded: Sequence[Stage], seed: int) -> tuple[Settings, Settings]:
    """Return the same of the stage of an evaluation. embedded: the stages of its features, and of its views."""
    common: dict[str, Any] = {kind: stage.key for kind, stage in zip(("features", "views"), embedded, strict=False)}
    common |= {"only_its_classes": True} if evaluation.data.only_its_classes else {}
    common |= {"answers": content(evaluation.data.answers)} if evaluation.data.answers else {}
    common |= {"seed": seed} | codebase.unshipped_digest("evals", evaluation.use)
    return common | {"hyper": non_default(evaluation.hyper)}, common | {"hyper": identity(evaluation.hyper)}


def _by_content(run: Run, sections: dict[str, Any]) -> dict[str, Any]:
    """Return the sections with the method's short name, and the contents of files that backbones name."""
    named, towers = dict[str, Any](), run.kinds.towers
    if files := _files(run.backbone):
        named["backbone"] = sections["backbone"] | files
    if own := {name: sections["towers"][name] | files for name in towers if (files := _files(towers[name]))}:
        named["towers"] = sections["towers"] | own
    for name, knobs in run.kinds.beside.items():
        if texts := load(name).contents(knobs):
            named["input"] = sections["input"] | {name: sections["input"][name] | texts}
    if augment := sections.get("augment"):
        named["augment"] = augment | {"use": outside.short(augment["use"])}
    return sections | {"method": outside.short(run.method)} | named


def _files(backbone: Backbone) -> dict[str, str]:
    """Return the contents of files that a backbone names, in the place of their names."""
    files = {"name": portable(backbone.name)} if outside.is_config_folder(backbone.name) else {}
    return files | ({} if backbone.weights in (None, "timm") else {"weights": content(backbone.weights)})


def params(run: Run, evals: Mapping[str, Evaluation], augment: OwnAugmentation | None) -> dict[str, str]:
    """Return the settings as texts by path."""
    sections, idle = as_dict(run) | {"method": outside.short(run.method)}, input_kinds.idle(run.kinds)
    values = {path: str(value) for path, value in flatten(sections) if value is not None and path not in idle}
    own = {f"evals.{name}.use": evaluation.use for name, evaluation in evals.items()}
    own |= {"augment.use": augment.use} if augment else {}
    return values | {path: outside.short(use) for path, use in own.items() if path in values}
