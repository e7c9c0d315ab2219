"""The evaluate stages: images are embedded once, to Parquet, and every downstream protocol reads that."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import torch
from numpy.typing import NDArray

from selfsup import codebase, hits, input_kinds, modality, outside
from selfsup.bounded import bounded
from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation
from selfsup.evaluator import DENSE, Features, Score, numbers
from selfsup.evaluator import load as load_evaluator
from selfsup.evaluator_contract import unfit
from selfsup.feature_choice import OWN, FeatureChoice
from selfsup.knob import Knobs
from selfsup.parts import dist
from selfsup.pipelines.data.answers import AnswerSource
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.objective import ENCODER, METHOD
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.classify import HeadSource
from selfsup.pipelines.stages.embedded import EmbeddedTrain, embedded_train
from selfsup.pipelines.stages.encoder_source import EncoderSource, Source
from selfsup.pipelines.stages.encoding import write_features
from selfsup.pipelines.stages.filled import blocks, mapped, places_of, written
from selfsup.pipelines.stages.load import Load
from selfsup.pipelines.stages.maps import MapSource
from selfsup.pipelines.stages.paired import MatchSource, pair_source
from selfsup.pipelines.stages.tasks import called, cpus_of, gpus_of_task
from selfsup.pipelines.stages.view_table import ViewTable, chosen
from selfsup.stage import Stage
from selfsup.views import Center


def embed(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write the features of both splits under the stage's folder, whole or not at all."""
    readers = (planned.evals[name] for name, made_by in planned.embeds.items() if made_by.key == stage.key)
    if (evaluation := next(readers, None)) is None:  # images are painted from them alone
        return embed_splits(planned, planned.train, planned.val, stage.folder)
    reader, splits = planned.tuned.get(evaluation.name, planned), planned.splits(evaluation.name)
    known = embedded_train(planned, evaluation.name)
    return embed_splits(reader, *splits, stage.folder, planned.feature(evaluation), known)


def embed_splits(
    planned: PlannedRun,
    train: Manifest,
    val: Manifest | None,
    folder: Path,
    reads: FeatureChoice = OWN,
    known: EmbeddedTrain | None = None,
) -> dict[str, float]:
    """Write features of one split or two by the encoder of a run, or predictions for the second, to a folder.

    Whole or not at all. known: those of train, which are made already.
    """
    weights = planned.pretrain.folder / ENCODER if planned.pretrain else None
    first = train.num_samples if reads.is_predicted or known else 0
    source, load, total = reading(planned, weights, reads, train, val, first)
    return write_features(source, load, planned.run, total, folder, known)


def reading(
    planned: PlannedRun, weights: Path | None, reads: FeatureChoice, train: Manifest, val: Manifest | None, first: int
) -> tuple[Source, Load, int]:
    """Return what makes a feature of loaded samples, what loads these, and how many there are.

    weights: the file of a trained encoder, beside which that of its objective lies. first: the first sample, of train
    and then val.
    """
    encoder = tested_source(planned, weights, reads)
    source: Source = encoder
    total = train.num_samples + (val.num_samples if val else 0) - first
    splits, beside, only = (train, val or train), None, None
    if weights and reads.reads_beside:
        source = pair_source(planned, weights.with_name(METHOD), reads, train.classes)
        beside, only = source.beside, chosen(total, reads.images)
        total = len(only)
        if beside and reads.kind == "matched":
            captions = Load(*splits, beside, first, only=only)({"id": np.arange(total)})["sample"]
            source = MatchSource(source, captions.tobytes())
    elif weights and reads.is_predicted:
        made_of = planned.run, planned.size, weights.with_name(METHOD), encoder.view, encoder.stats
        source = HeadSource(*made_of, reads.decoded)
    return source, Load(*splits, source.view, first, beside, only), total


def source_of(planned: PlannedRun, weights: Path | None, reads: FeatureChoice) -> EncoderSource:
    """Return the encoder of a run. weights: the file of a trained one. reads: the feature."""
    run, stats = planned.run, planned.stats
    view = input_kinds.whole_of(run.kinds, run.backbone, run.embed.crop)
    if reads.squashed:
        assert isinstance(view, Center), "maps are of images"
        view = replace(view, squashed=True)
    shape = input_kinds.shape_of(run.kinds, run.backbone, stats.channels)
    return EncoderSource(run.method, run.backbone, run.seed, shape, view, stats, weights, reads)


def tested_source(planned: PlannedRun, weights: Path | None, reads: FeatureChoice) -> EncoderSource:
    """Return the same of as many parts of each sample as the run's features are averaged over."""
    source = source_of(planned, weights, reads)
    return replace(source, view=modality.load(planned.run.modality).tested(source.view, planned.run.embed))


def probe(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Run an evaluation on the features of its embed stage, as a task on the cluster; return its metrics.

    Writes which images it had right to the stage's folder.
    """
    evaluation = planned.evals[stage.name or stage.kind]
    folder, made_by = planned.embeds[evaluation.name].folder, planned.views.get(evaluation.name)
    versions = made_by.folder if made_by else None
    scores, label = scored(planned, evaluation, folder, versions, cpus=cpus_of(planned.run), gpus=gpus_of_task())
    hits.save(stage.folder, hits.identity(planned.splits(evaluation.name).val.digest, label), scores)
    return numbers(scores) | {"images": float(len(label))}


def scored(
    planned: PlannedRun, evaluation: Evaluation, folder: Path, versions: Path | None, *, cpus: float, gpus: int
) -> tuple[dict[str, Score], NDArray[np.int64]]:
    """Return the scores of an evaluation, and the labels of validation samples, from the features in a folder.

    versions: the folder of those of versions of samples, if it reads some.
    """
    splits, target = planned.splits(evaluation.name), evaluation.evaluator.target
    code = codebase.unshipped_digest("evals", evaluation.use)
    choice = planned.feature(evaluation)
    size = planned.run.backbone.image_size
    maps = MapSource(target, splits, size, shared=choice.is_of_tokens) if target in DENSE else None
    first, split = (0, splits.train) if choice.split == "train" else (splits.train.num_samples, splits.val)
    samples = chosen(split.num_samples, choice.images)
    table = ViewTable(versions, choice.views, samples, first) if versions else None
    data = evaluation.data
    answers = AnswerSource(data.answers, *splits, planned.run.modality) if data.answers else None
    classes, narrow = len(splits.train.classes), data.only_its_classes
    read = partial(features, folder, classes, maps=maps, views=table, narrow=narrow, answers=answers)
    what = evaluation.use, evaluation.hyper, read, choice.parts, planned.run.seed, code
    return called(_probe, *what, planned.run.resources.eval_memory, cpus=cpus, gpus=gpus)


def _probe(
    use: str, hyper: Knobs, read: Callable[..., Features], parts: int, seed: int, code: Mapping[str, str], memory: int
) -> tuple[dict[str, Score], NDArray[np.int64]]:
    """-> scores by name, and labels of the validation samples.

    read: features, given `labelled`. parts: as of Features. code: the digest of an evaluator of the user's. memory: MiB
    that it holds at once.
    """
    if codebase.unshipped_digest("evals", use) != code:
        raise SpecError(
            f"{use} has changed since the run was planned; run the same command again: it is another run now"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluator = load_evaluator(use)
    data = read(labelled=evaluator.target == "class")._replace(parts=parts)
    with bounded(memory), dist.alone(), outside.failing(use):
        scores = dict(evaluator(hyper).run(data, seed=seed, device=device))
    if outside.is_outside(use) and (problem := unfit(scores, evaluator.metrics, len(data.val))):
        raise SpecError(f"{use}: {problem}; `selfsup check-evaluator {use}` shows what an evaluation has to do")
    assert scores.keys() <= evaluator.metrics.keys(), f"{use} yields {', '.join(scores)}: not all in its metrics"
    return scores, data.val_label


def features(
    folder: Path,
    classes: int,
    *,
    labelled: bool = True,
    maps: MapSource | None = None,
    views: ViewTable | None = None,
    narrow: bool = False,
    answers: AnswerSource | None = None,
) -> Features:
    """Read the features of an embed stage, in the order of the data set, and maps and views of the same samples.

    classes: of labels; of maps there are as many as they show. labelled: only samples with a label. narrow: only the
    classes of validation samples may be named. answers: what is right of these, of which others are left out. Raises
    DataError where a file is damaged or missing.
    """
    stored = written(folder)
    table, right = _answered(_rows(stored), answers) if answers else (_rows(stored), None)
    table = _labelled(table) if labelled else table
    value = _values(stored, table, folder)
    ids, label = (np.array(table[name].to_numpy()) for name in ("id", "label"))  # copies: PyTorch wants to write
    train = int((table["split"].to_numpy() == 0).sum())  # they come first
    data = Features(value[:train], label[:train], value[train:], label[train:], classes)
    data = data._replace(right=right)
    data = data._replace(among=_shown(data)) if narrow else data
    if maps:
        room = mapped((len(value), *maps.shape(value.shape[1])), folder, maps.dtype)
        shown = maps.read(ids, room)
        data = data._replace(classes=shown, train_map=room[:train], val_map=room[train:])
    return data._replace(views=views.read(ids, value)) if views else data


def _shown(features: Features) -> NDArray[np.bool_]:
    """-> (C,): the classes of validation samples"""
    if features.right is not None:
        shown: NDArray[np.bool_] = np.logical_or.reduce(features.right, 0)
        return shown
    return np.isin(np.arange(features.classes), features.val_label)


def read_features(folder: Path) -> tuple[pa.Table, NDArray[np.float32]]:
    """Return what `embed_splits` wrote, in the order of the data set, and its features, (N, D) or (N, T, D).

    Features are mapped from disk. Raises DataError where a file is damaged or missing.
    """
    table = _rows(stored := written(folder))
    return table, _values(stored, table, folder)


def _rows(stored: pyarrow.dataset.Dataset) -> pa.Table:
    """Return all that is stored but features, in the order of the data set."""
    return stored.to_table([name for name in stored.schema.names if name != "feature"]).sort_by("id")


def _labelled(table: pa.Table) -> pa.Table:
    return table.filter(pc.field("label") >= 0)


def _answered(table: pa.Table, answers: AnswerSource) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Return the rows with the first right class as the label of each validation sample, -1 without any.

    And what is right of those that have one, (M, C).
    """
    label, is_val = table["label"].to_numpy().copy(), table["split"].to_numpy() == 1
    right = answers.read(table["id"].to_numpy()[is_val])
    label[is_val] = np.where(right.any(1), right.argmax(1), -1)
    return table.set_column(table.schema.get_field_index("label"), "label", pa.array(label)), right[right.any(1)]


def _values(stored: pyarrow.dataset.Dataset, table: pa.Table, folder: Path) -> NDArray[np.float32]:
    """Return the features of rows, mapped from disk."""
    width = stored.schema.field("feature").type.list_size
    tokens = table["tokens"][0].as_py() if "tokens" in table.column_names and len(table) else None
    value = mapped((len(table), tokens, width // tokens) if tokens else (len(table), width), folder)
    for batch in blocks(stored, "id", "feature"):
        place, known = places_of(batch["id"].to_numpy(), table["id"].to_numpy())
        value[place] = batch["feature"].flatten().to_numpy().reshape(-1, *value.shape[1:])[known]
    return value
