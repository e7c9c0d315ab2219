"""Checks of a run's settings against each other and its data, before anything starts."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from selfsup import families, outside
from selfsup.augmentation import OwnAugmentation
from selfsup.augmentation_contract import broken
from selfsup.blank import without_memory
from selfsup.encoder import PooledEncoder, build
from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation
from selfsup.evaluator import DENSE
from selfsup.families import INSTEAD
from selfsup.input_kinds import leading_of, shape_of, sizes_of, views_of
from selfsup.method import load as load_method
from selfsup.modality import ready
from selfsup.outside import short
from selfsup.pipelines import by_block, kinds, labelled, tuning
from selfsup.pipelines.dense import check_learned, check_maps
from selfsup.pipelines.planned import PlannedRun, Splits
from selfsup.pipelines.stages import versions
from selfsup.recall import once
from selfsup.sections import Backbone, InputShape, Setup
from selfsup.spec import BASELINES, Run
from selfsup.views import ViewSpec
from selfsup.weights import content

LEAST_WIDTH = 16  # channels of a convolution that oneDNN 3.13 of torch 2.15 computes without damage


def check(planned: PlannedRun) -> None:
    """Raise SpecError where the method cannot be run with this encoder, data or length of training.

    Raises DataError where labels would mean nothing. Both name the setting.
    """
    kinds.check(planned)
    _check_backbone(planned)
    _check_towers(planned)
    _check_batch(planned)
    _check_labels(planned)
    for evaluation in planned.evals.values():
        _check_evaluation(planned, evaluation)
    if planned.augment and planned.pretrain:
        _check_augmentation(planned, planned.augment)
    if planned.run.method not in BASELINES:
        _check_class_token(planned.run.method, planned.run.backbone)
        _check_method(planned)
        _check_warmup(planned)


def _check_class_token(method: str, backbone: Backbone) -> None:
    if load_method(method).class_token and not families.has_class_token(backbone.name):
        lacking = f"{short(method)} learns on the class token, and {backbone.name} has none"
        raise SpecError(f"{lacking}; choose a ViT that has one, such as vit_small_patch16_224", "backbone.name")
    if load_method(method).class_token and backbone.class_tokens > 1:
        raise SpecError(f"{short(method)} learns on one class token; leave it out", "backbone.class_tokens")


def _check_backbone(planned: PlannedRun) -> None:
    """Raise SpecError where the backbone cannot be made, see the views, give the maps read, or take its weights."""
    run, backbone = planned.run, planned.run.backbone
    shape = shape_of(run.kinds, backbone, planned.train.reading(run.modality).channels)
    if backbone.is_vit:
        _once(_make, backbone, shape)
    else:
        dense = run.method not in BASELINES and "vit" not in load_method(run.method).backbones
        maps = run.method not in BASELINES and load_method(run.method).views(run.hyper).maps
        places = dense or maps or any(evaluation.feature.kind == "tokens" for evaluation in planned.evals.values())
        _once(check_images, backbone, shape, _sizes(run), places=bool(places), stages=dense)
        _check_width(run)
    by_block.check(run, shape)
    if backbone.weights not in (None, "timm"):
        _try_weights(backbone, shape, content(backbone.weights))


def _check_towers(planned: PlannedRun) -> None:
    """Raise SpecError where no encoder can be made of what lies beside samples, or not with its weights."""
    run = planned.run
    for name, shape in planned.size.beside.items() if run.beside else ():
        tower = run.kinds.towers.get(name, run.backbone)
        if ready(name).is_companion:
            continue
        if tower.is_vit and tower.patch and (problem := shape.undivided(tower.patch)):
            raise SpecError(problem, f"input.{name}", f"towers.{name}.patch_size")
        if load_method(run.method).one_trunk:
            continue
        if tower.is_vit:
            _once(_make, tower, shape)
        else:
            _once(check_images, tower, shape, (shape.sizes,), places=False, stages=False)
        if name in run.kinds.towers and tower.weights not in (None, "timm"):
            _try_weights(tower, shape, content(tower.weights))


def _check_width(run: Run) -> None:
    """Raise SpecError for convolutions that end a process on a CPU, or damage its memory."""
    width = run.backbone.width
    if width and width < LEAST_WIDTH and not run.resources.gpus_per_worker:
        reason = f"convolutions of {width} channels can crash torch on a CPU, whose oneDNN damages memory there"
        remedy = f"expected {LEAST_WIDTH} or more, or GPUs (resources.gpus_per_worker)"
        raise SpecError(f"{reason}; {remedy}", "backbone.width", "resources.gpus_per_worker")


def _sizes(run: Run) -> tuple[tuple[int, ...], ...]:
    """Return the points along each axis of all samples that the run shows to its encoder."""
    own = sizes_of(run.kinds, run.backbone)
    views = () if run.method in BASELINES else _views(run)
    return tuple(sorted({own, *(view.lengths for view in views)}))


def _views(run: Run) -> tuple[ViewSpec, ...]:
    """Return the views of samples that the method asks for, each with its size."""
    views = views_of(load_method(run.method).views(run.hyper), run.kinds, run.backbone).specs
    return tuple(view for view in views if view.modality == run.modality)


@lru_cache(maxsize=256)
def _once(attempt: Callable[..., None], backbone: Backbone, *of: Any, **options: bool) -> None:
    """Attempt something with a backbone without its weights; of timm's, what succeeded once is not done again."""
    bare = backbone.model_copy(update={"weights": None})
    attempt = partial(attempt, bare, *of, **options)
    if outside.is_outside(backbone.name):
        attempt()
    else:
        once([attempt.func.__name__, bare.model_dump(), of, options], attempt)


def check_images(
    backbone: Backbone,
    shape: InputShape,
    sizes: tuple[tuple[int, ...], ...],
    *,
    places: bool = False,
    stages: bool = False,
) -> None:
    """Raise SpecError where a pooled encoder cannot see samples of these sizes, or gives no vector.

    shape: that it is built for. places: whether feature maps are read; stages: whether those of every stage are.
    Found by a forward pass without memory, since timm has too many models for rules.
    """
    with without_memory():
        encoder = build(backbone, shape=shape).eval()
        assert isinstance(encoder, PooledEncoder)
        for size in sizes:
            image = torch.empty(2, shape.channels, *size)
            if encoder.pooled(image).shape != (2, encoder.dim):
                message = f"{backbone.name} makes no vector of {encoder.dim} channels of an image"
                raise SpecError(f"{message}; {INSTEAD}", "backbone.name")
            if places and not _has_map(encoder, image):
                lacking = f"feature map of the {encoder.dim} channels of its vectors, which the run reads"
                raise SpecError(f"{backbone.name} has no {lacking}; {INSTEAD}", "backbone.name")
            if stages and not _has_stages(encoder, image):
                lacking = "feature maps of every stage, which the method reads"
                raise SpecError(f"{backbone.name} has no {lacking}; {INSTEAD}", "backbone.name")


def _has_map(encoder: PooledEncoder, image: Tensor) -> bool:
    [maps] = encoder._through(lambda images: (encoder.trunk.forward_features(images),), image)
    return isinstance(maps, Tensor) and maps.ndim == 4 and encoder.dim in (maps.shape[1], maps.shape[3])


def _has_stages(encoder: PooledEncoder, image: Tensor) -> bool:
    if not hasattr(encoder.trunk, "forward_intermediates"):  # from outside
        return False
    stages = encoder.stages(image)
    return [stage.shape[1] for stage in stages if stage.ndim == 4] == encoder.widths


def _make(backbone: Backbone, shape: InputShape) -> None:
    """Build a token encoder on the meta device, without memory, for the errors of its constructor."""
    with without_memory():
        build(backbone, shape=shape)


@lru_cache(maxsize=64)
def _try_weights(backbone: Backbone, shape: InputShape, version: str) -> None:  # noqa: ARG001 (another call)
    build(backbone, shape=shape)


def _check_augmentation(planned: PlannedRun, own: OwnAugmentation) -> None:
    """Raise SpecError where the user's augmentation does not fit the data or the views, or breaks a contract."""
    run, name = planned.run, short(own.use)
    if run.modality != "image":
        raise SpecError(f"{name} changes images, and the run is of {run.modality}; leave it out", "augment")
    channels, taken = planned.train.fields[run.modality].channels, own.operation.channels
    if taken and channels not in taken:
        words = " or ".join(map(str, taken))
        raise SpecError(
            f"{name} takes images of {words} channels, and {planned.train.root} has {channels}", "augment.use"
        )
    views = _views(run)
    if foreign := [number for number in own.views or () if number >= len(views)]:
        counted = f"0 to {len(views) - 1}" if len(views) > 1 else "0 alone"
        raise SpecError(f"there is no view {foreign[0]} of {short(run.method)}; expected {counted}", "augment.views")
    for lengths in sorted({view.lengths for number, view in enumerate(views) if own.changes(number)}):
        _try_augmentation(own, (channels, *lengths))


@lru_cache(maxsize=64)
def _try_augmentation(own: OwnAugmentation, shape: tuple[int, ...]) -> None:
    if reason := broken(own.operation, shape):
        raise SpecError(f"{own.use}: {reason}", "augment.use")


def _check_batch(planned: PlannedRun) -> None:
    run, train = planned.run, planned.learned
    if run.stream.remainder == "drop" and run.train.batch > train.num_samples:
        raise SpecError(
            f"{run.train.batch} samples a step, but {train.root} holds {train.num_samples}, and stream.remainder: drop "
            "leaves out what does not fill a batch. Use a smaller batch, or remainder: wrap.",
            "train.batch",
            "data.train",
        )


def _check_method(planned: PlannedRun) -> None:
    """Raise SpecError where the method's knobs do not go with the data and the other settings."""
    run, kind = planned.run, ready(planned.run.modality)
    sizes, leading = sizes_of(run.kinds, run.backbone), leading_of(run.kinds)
    for view in _views(run):
        if problem := kind.unfit(view, planned.train.reading(run.modality)):
            raise SpecError(f"{problem}: {planned.train.root}", "hyper.rand_augment", "data.train")
    for workers in run.worker_counts:
        others = planned.size.beside, run.kinds.towers, run.begun
        setup = Setup(run.backbone, run.train, workers, sizes, leading, run.modality, *others)
        for error in load_method(run.method).check(run.hyper, setup, planned.info):
            raise error


def _check_warmup(planned: PlannedRun) -> None:
    order = planned.order
    warmup = planned.run.optim.warmup_steps(batch=order.batch, steps_per_epoch=order.steps_per_epoch)
    if warmup > planned.steps:
        raise SpecError(
            f"{warmup:,} steps of warm-up are longer than the training, {planned.steps:,} steps (train.duration); an "
            f"epoch of {planned.train.root} has {order.steps_per_epoch:,}. Shorten it, or train longer.",
            "optim.warmup",
            "train.duration",
        )


def _check_labels(run: PlannedRun) -> None:
    """Raise where a method learns from labels or maps, and the data has none. Of evaluations: `_check_evaluation`."""
    method = run.run.method
    if method in BASELINES:
        return
    views = load_method(method).views(run.run.hyper)
    check_learned(run.run, run.train, [spec.name for spec in views.maps])
    if load_method(method).needs_labels and "tags" not in views.beside:  # which are labels, too
        labelled.check(run.method, "method", run.train, "data.train")
        labelled.check_several(run.method, run.train, "data.train")


def _check_evaluation(run: PlannedRun, evaluation: Evaluation) -> None:
    """Raise where the encoder has no such feature, or the data too few labels to learn from or to be scored by."""
    name, splits = evaluation.name, run.splits(evaluation.name)
    evaluation.feature.check(run.run.backbone, f"evals.{name}")
    _check_versions(run, evaluation)
    for knob in ("only_its_classes", "answers"):
        if getattr(evaluation.data, knob) and not evaluation.evaluator.classifies:
            raise SpecError(f"{evaluation.use} names no class; leave it out", f"evals.{name}.data.{knob}")
    if evaluation.evaluator.target is None:
        return
    own = {
        use: f"evals.{name}.data.{use}" if getattr(evaluation.data, use) else f"data.{use}" for use in splits._fields
    }
    if evaluation.evaluator.target in DENSE:
        check_maps(run.run, evaluation, splits._asdict(), own)
    else:
        _check_classes(evaluation, splits, own)
    if evaluation.evaluator.reads == "logits":
        with tuning.located(evaluation):
            check(run.tuned[name])


def _check_classes(evaluation: Evaluation, splits: Splits, paths: Mapping[str, str]) -> None:
    """Raise where data have too few labels, or others than the evaluation knows. paths: of settings."""
    name, answered = evaluation.name, evaluation.data.answers is not None
    for use, manifest in splits._asdict().items():
        if use == "train" or not answered:
            labelled.check(name, f"evals.{name}", manifest, paths[use])
    labelled.check_several(name, splits.train, paths["train"])
    if not answered:
        labelled.check_classes(*splits, paths)
    number, classes = splits.train.num_labelled, len(splits.train.classes)
    if few := evaluation.evaluator.lacks(evaluation.hyper, number, classes):
        raise SpecError(few.message, f"evals.{name}.{few.knob}".rstrip("."))


def _check_versions(run: PlannedRun, evaluation: Evaluation) -> None:
    """Raise SpecError where the data has no such versions as an evaluation reads."""
    choice = evaluation.feature
    if not choice.views:
        return
    split = getattr(run.splits(evaluation.name), choice.split)
    if problem := versions.load(choice.versions).unfit(run.run.modality, split):
        raise SpecError(f"{problem}; leave it out", f"evals.{evaluation.name}")
