"""Small objectives on small encoders, each with a batch of its views."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from molds import Mold
from precision import double_precision
from torch import Tensor, nn

from selfsup import encoder, modality
from selfsup.batch import Batch, View
from selfsup.contract import CHANNELS, beside, cheap_kinds, random_batch
from selfsup.frozen import Frozen
from selfsup.input_kinds import InputKinds, shape_of
from selfsup.knob import Knobs
from selfsup.method import Method, TrainInfo, layouts, load, names
from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Tokens
from selfsup.predecessor import SECTIONS
from selfsup.sections import Backbone

SIZE, PATCH = 16, 4
SMALL: dict[str, dict[str, object]] = {  # knobs that make an objective fit such images and batches
    "aim": {"head_width": 32, "head_depth": 1},
    "amdim": {"dim": 24},
    "barlow": {"dim": 16},
    "beit": {"mask_block": 2},
    "byol": {"hidden": 64},
    "cae": {"regressor_depth": 1, "decoder_depth": 1},
    "capi": {"clusters": 12, "predictor_depth": 1, "asked": 0.2, "momentum_warmup": 0.0},
    "audiovisual_mae": {
        "mask_ratio": 0.75,
        "fusion_depth": 1,
        "decoder_width": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
    },
    "avid": {"negatives": 5, "hidden": 32, "dim": 16},
    "clip": {"dim": 16},
    "colorization": {"depth": 1, "width": 16},
    "context_encoder": {"bottleneck": 16, "width": 4},
    "cubic_puzzles": {"hidden": 32},
    "croco": {"mask_ratio": 0.75, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "data2vec": {"average": 2, "mask_block": 2},
    "clusterfit": {"clusters": 4, "iterations": 5},
    "deepcluster": {"clusters": 4, "hidden": 64, "local_size": 8, "local_crops": 2},
    "denoising": {"depth": 1, "width": 16},
    "densecl": {"queue": 32, "split": 2, "hidden": 64, "dim": 32},
    "depthcontrast": {"queue": 24, "dim": 16},
    "dense.depth_estimator": {"bins": 16},
    "dense.object_detector": {"classes": 10, "width": 16, "proposals": 8, "regions": 4},
    "dense.segmenter": {"classes": 10},
    "dino": {"outputs": 24, "hidden": 256, "bottleneck": 16, "local_size": 8, "local_crops": 2},
    "dinov2": {"outputs": 24, "hidden": 256, "bottleneck": 16, "local_size": 8, "local_crops": 2},
    "dinov3": {"gram_size": 24, "outputs": 24, "hidden": 256, "bottleneck": 16, "local_size": 8, "local_crops": 2},
    "droppos": {"mask_ratio": 0.5, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "essl": {"hidden": 64, "dim": 16, "small": 8},
    "flexpredict": {"targets": 2, "min_keep": 1, "predictor_width": 24, "predictor_depth": 1, "predictor_heads": 3},
    "gdt": {"hidden": 32, "dim": 16},
    "gmml": {"hidden": 32, "dim": 16},
    "ibot": {"outputs": 24, "hidden": 256, "bottleneck": 16, "local_size": 8, "local_crops": 2},
    "ijepa": {"targets": 2, "min_keep": 1, "predictor_width": 24, "predictor_depth": 1, "predictor_heads": 3},
    "imagebind": {"dim": 16},
    "jigsaw": {"permutations": 6, "puzzle": 36, "piece": 8, "dim": 16, "hidden": 32},
    "lejepa": {"hidden": 64, "dim": 16, "slices": 32, "local_size": 8, "local_crops": 2},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4},
    "m3ae": {"word_ratio": 0.5, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "macrl": {"queue": 24, "dim": 16, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4},
    "mage": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "maskfeat": {"cell": 2},
    "moco": {"queue": 32, "split": 2},
    "mavil": {"mask_ratio": 0.75, "fusion_depth": 1, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "mixedae": {"images": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4},
    "mocov3": {"hidden": 64},
    "msn": {"prototypes": 12, "hidden": 64, "dim": 16, "local_size": 8, "local_crops": 2},
    "nepa": {"momentum": 0.9},
    "nnclr": {"queue": 32, "hidden": 64, "predictor": 64},
    "obow": {"words": 12, "border": 0, "crop_size": 16, "local_size": 8},
    "pirl": {"negatives": 5, "puzzle": 24},
    "multimae": {
        "classes": 5,
        "stride": 2,
        "class_dim": 4,
        "decoder_width": 24,
        "decoder_depth": 1,
        "decoder_heads": 2,
    },
    "omnivore": {"color_drop": 0.0},
    "pixpro": {"hidden": 64, "dim": 6},
    "pointcontrast": {"dim": 8},
    "random_walk": {"grid": 3, "dim": 16},
    "relative_position": {"puzzle": 36, "piece": 8, "jitter": 2, "hidden": 32},
    "ropim": {"ratio": 0.3},
    "salt": {"targets": 2, "min_keep": 1, "predictor_width": 24, "predictor_depth": 1, "predictor_heads": 3},
    "sela": {"clusters": 4, "heads": 3, "relabels": 8},
    "semaim": {"decoder_depth": 2},
    "selfie": {"image": 32, "piece": 8, "mask_ratio": 0.4, "pool_width": 24, "pool_depth": 1, "pool_heads": 2},
    "simdino": {"hidden": 64, "dim": 16, "local_size": 8, "local_crops": 2},
    "simdinov2": {"hidden": 64, "dim": 16, "local_size": 8, "local_crops": 2},
    "siglip": {"dim": 16},
    "simsiam": {"dim": 64, "bottleneck": 16},
    "slip": {"dim": 16, "ssl_hidden": 64, "ssl_dim": 16},
    "split_brain": {"depth": 1, "width": 16},
    "swav": {"prototypes": 12, "hidden": 64, "queue": 16, "queue_begins": 0.0, "local_size": 8, "local_crops": 2},
    "tico": {"hidden": 64, "dim": 32},
    "uniter": {"mask_ratio": 0.3, "word_ratio": 0.6},
    "vicreg": {"dim": 64},
    "visreg": {"hidden": 64, "dim": 16, "slices": 32, "local_size": 8, "local_crops": 2},
    "vqvae": {"num_codes": 24, "code_dim": 8, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
}
BACKBONES = {
    "vit": Backbone(name="vit_tiny_patch16_224", image_size=SIZE, patch_size=PATCH, width=48, depth=2, heads=3),
    "cnn": Backbone(name="resnet18", image_size=SIZE, stem="small", width=16),  # oneDNN 3.13 crashes below 16
    "whole cnn": Backbone(name="resnet18", image_size=SIZE, stem="small"),
    "narrow cnn": Backbone(name="resnet18", image_size=SIZE, stem="small", width=8),
    "hiera": Backbone(name="hiera_tiny_224", image_size=3 * SIZE, patch_size=2 * PATCH, width=16, depth=6),
}
CLIPS = {"video": {"frames": 4}, "audio": {"frames": 32, "bins": 16}}
FIRST: dict[str, dict[str, Any]] = {"dinov3": {"gram_size": None}, "mavil": {"target": "pixels"}}  # stages
MIXED = {"omnivore"}  # of whose batches each sample has views of one kind
Setting = tuple[Method, Batch]
MOST = 64  # settings that are kept: those of the tests before this one, of a few megabytes each


def built(
    name: str,
    backbone: str | None = None,
    *,
    samples: int = 8,
    seed: int = 0,
    double: bool = False,
    clips: bool = False,
    **hyper: object,
) -> Setting:
    """Return an objective at its initial weights, and a batch, both functions of the arguments.

    backbone: a kind that it takes, the first one if None. double: in double precision, from the first number on. clips:
    of such samples, and of sounds that are longer than high, if it reads some.
    """
    with double_precision() if double else nullcontext():
        torch.manual_seed(seed)
        kind = load(name)
        knobs = kind.Hyper(**SMALL.get(name, {}) | hyper)
        settings, kinds = BACKBONES[backbone or kind.backbones[0]], cheap_kinds(kind, kind.views(knobs))
        kinds = of_clips(kinds) if clips else kinds
        shape = shape_of(kinds, settings, CHANNELS)
        trunk = encoder.build(settings, kind.initialize, shape, mask_units=kind.mask_units)
        info = TrainInfo(num_samples=samples, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=shape.sizes)
        if lesson := kind.lesson(knobs):
            first = first_stage(name, knobs, seed) if name in FIRST else None
            info = info._replace(teacher=first or teacher(kind, lesson, knobs, samples, trunk.patch))
        views, towers, shapes = beside(kind, kind.views(knobs), kinds, settings)
        info = info._replace(beside=shapes)
        method = kind(knobs, {kinds.name: trunk, **towers}, info)
        batch = random_batch(views, trunk.patch, samples, layouts(method, info))
    return method, by_turns(batch) if name in MIXED else batch


def of_clips(kinds: InputKinds) -> InputKinds:
    """Return kinds of data of which samples are clips."""
    own = {name: modality.load(name).Input(**knobs) for name, knobs in CLIPS.items()}
    return InputKinds("video", own["video"], {name: own.get(name, knobs) for name, knobs in kinds.beside.items()})


def copies(most: int | None) -> Callable[..., Setting]:
    """Return `built` as a function that makes each of the settings asked for last once, and returns copies.

    A copy leaves torch's generator as making it does. most: settings that are kept; None: all.
    """

    @lru_cache(most, typed=True)
    def made(_: torch.dtype, *names: object, **options: Any) -> tuple[Mold, Tensor]:
        return Mold(built(*names, **options)), torch.get_rng_state()  # type: ignore[arg-type]

    def copied(*names: object, **options: object) -> Setting:
        mold, generator = made(torch.get_default_dtype(), *names, **options)
        torch.set_rng_state(generator)
        copy: Setting = mold.copy()
        return copy

    return copied


setting = copies(MOST)


def of_images() -> list[str]:
    """Return the names of the objectives that learn from images alone, which all have recipes of photographs."""
    kinds = {name: load(name) for name in names()}
    return [name for name, kind in kinds.items() if not kind.beside and "image" in (kind.modalities or ("image",))]


def teacher(kind: type[Method], lesson: str, knobs: Knobs, samples: int, patch: Patch | None) -> Frozen:
    """Return a small tokenizer or encoder for an objective to learn from; the global generator stays as it was.

    patch: pixels a side of the learner's tokens.
    """
    with torch.random.fork_rng():
        method, _ = setting("vqvae" if lesson == "codes" else "simclr", "vit", seed=1)
        features = torch.randn(samples, method.backbone.dim, generator=torch.Generator().manual_seed(2))
    made = kind.prepare(knobs, features, torch.arange(samples), samples, 0) if lesson == "targets" else None
    return Frozen(method, patch, targets=made)


def briefly_taught(recipe: Path, folder: Path) -> list[str]:
    """Return changes of a recipe: what comes before it trains for four steps, by specs in a folder."""
    sections, changes = yaml.safe_load(recipe.read_text()), list[str]()
    train = "train: {duration: {steps: 4}, batch: 16}\noptim: {warmup: null}\n"
    for name in SECTIONS:
        if section := sections.get(name):
            (spec := folder / f"{name}.yaml").write_text(f"extends: {section['from']}\n{train}")
            changes.append(f"{name}.from={spec}")
    return changes


def first_stage(name: str, knobs: Knobs, seed: int) -> Frozen:
    """Return what a second stage goes on from, at other weights; the global generator stays as it was."""
    with torch.random.fork_rng():
        method, _ = setting(name, seed=seed + 1, **{**dict(knobs), **FIRST[name]})
    return Frozen(method, PATCH)


def moved(*teachers: nn.Module, by: float = 0.1) -> None:
    """Move teachers away from their students by noise, so that neither can be taken for the other."""
    for teacher in teachers:
        for weight in teacher.parameters():
            weight.data.add_(by * torch.randn_like(weight))


def shake(method: nn.Module) -> None:
    """Move all trained weights by noise, so that no bias is zero and no scale one."""
    for weight in method.parameters():
        if weight.requires_grad:
            weight.data.add_(0.05 * torch.randn_like(weight))


def without(batch: Batch, rows: Sequence[int], *kinds: str) -> Batch:
    """Return the batch whose samples in these rows have nothing beside them, as the stream and modalities give that.

    kinds: of the views that they lack instead.
    """
    where = torch.zeros(len(batch.sample), dtype=torch.bool)
    where[list(rows)] = True
    lacking = kinds or [view.modality for view in batch.views[1:]]
    views = tuple(_bare(view, where) if view.modality in lacking else view for view in batch.views)
    maps = tuple(map_.where(~where[:, None, None], -1) for map_ in batch.maps)
    return batch._replace(views=views, maps=maps)


def _bare(view: View, where: Tensor) -> View:
    assert isinstance(view.value, Tokens)
    valid = None if view.value.valid is None else view.value.valid & ~where[:, None]
    value = view.value._replace(value=view.value.value * ~where[:, None, None], valid=valid)
    has = ~where if view.has is None else view.has & ~where
    return view._replace(value=value, box=view.box * ~where[:, None], has=has)


def by_turns(batch: Batch) -> Batch:
    """Return the batch whose samples are by turns an image, an image with depth, and a clip."""
    rows = range(len(batch.sample))
    batch = without(batch, rows[::3], "depth", "video")
    return without(without(batch, rows[1::3], "video"), rows[2::3], "image", "depth")
