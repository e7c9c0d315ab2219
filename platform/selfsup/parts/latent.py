"""Parts that predictors of an EMA teacher's features share, those of I-JEPA (arXiv 2301.08243).

B: batch, N: tokens, K: visible ones, S: sets of targets, M: tokens of a set, D: channels.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.batch import Batch, View
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Range
from selfsup.masks import IndexMask
from selfsup.multiblock import MultiBlockMask
from selfsup.parts import reconstruction
from selfsup.parts.tokens import Grid, Tokens, places

Knob = dict[str, Any]  # all of a knob but its default, which each method has from its paper
SHARE: Knob = {"gt": 0, "lt": 1}
TARGETS: Knob = {"doc": "blocks that are predicted", "symbol": "M", "sweep": Choice(1, 2, 4), "ge": 1, "le": 100}
TARGET_MIN: Knob = {"doc": "smallest block, as a share of the image", "sweep": Range(0.05, 0.2)} | SHARE
TARGET_MAX: Knob = {"doc": "largest block, as a share of the image", "sweep": Range(0.15, 0.4)} | SHARE
ASPECT_MIN: Knob = {"doc": "least height of a block over its width", "gt": 0}
ASPECT_MAX: Knob = {"doc": "most height of a block over its width", "gt": 0}
CONTEXT_MIN: Knob = {
    "doc": "smallest context, of which blocks are then cut out",
    "sweep": Range(0.4, 1.0),
    "gt": 0,
    "le": 1,
}
CONTEXT_MAX: Knob = {"doc": "largest context, of which blocks are then cut out", "gt": 0, "le": 1}
MIN_KEEP: Knob = {"doc": "patches of which the encoder always sees more", "ge": 0}
WIDTH: Knob = {"doc": "channels of the predictor", "sweep": Choice(96, 192, 384), "gt": 0, "multiple_of": 4}
DEPTH: Knob = {"doc": "transformer blocks of the predictor", "sweep": Choice(3, 6, 12), "ge": 1, "le": 1000}
HEADS: Knob = {"doc": "attention heads of the predictor", "gt": 0}
MOMENTUM: Knob = {
    "doc": "of the teacher at first",
    "symbol": "m",
    "sweep": Choice(0.99, 0.996, 0.999),
    "ge": 0,
    "le": 1,
}
CROP_MIN: Knob = {"doc": "smallest crop, as a share of the image", "sweep": Range(0.05, 1.0), "gt": 0, "le": 1}


class Blocks(Protocol):
    """The knobs of a mask of several blocks."""

    @property
    def targets(self) -> int: ...
    @property
    def target_min(self) -> float: ...
    @property
    def target_max(self) -> float: ...
    @property
    def aspect_min(self) -> float: ...
    @property
    def aspect_max(self) -> float: ...
    @property
    def context_min(self) -> float: ...
    @property
    def context_max(self) -> float: ...
    @property
    def min_keep(self) -> int: ...


def blocks(knobs: Blocks) -> MultiBlockMask:
    """Return the rule of these knobs."""
    return MultiBlockMask(
        targets=knobs.targets,
        scale=(knobs.target_min, knobs.target_max),
        aspect=(knobs.aspect_min, knobs.aspect_max),
        context=(knobs.context_min, knobs.context_max),
        least=knobs.min_keep,
    )


def context_left(knobs: Blocks, grid: Grid | None) -> Iterator[SpecError]:
    """Yield an error where the blocks leave no more than hyper.min_keep tokens of a grid, or it has no blocks."""
    if grid is None or len(grid) != 2:
        return
    seen, _ = blocks(knobs).typical(grid)
    if seen <= knobs.min_keep:
        sizes = " x ".join(map(str, grid))
        message = f"{knobs.targets} blocks leave {seen} of {sizes} tokens, not more than {knobs.min_keep}"
        paths = "hyper.min_keep", "hyper.targets", "backbone.patch_size", "backbone.image_size"
        yield SpecError(f"{message}; use smaller patches or blocks, or a lower min_keep", *paths)


def masked(batch: Batch) -> tuple[Tokens, IndexMask, Tensor]:
    """Return the tokens of the one view, its mask, and the targets in it, (B, S, M)."""
    [view] = batch.views
    return masked_view(view)


def masked_view(view: View) -> tuple[Tokens, IndexMask, Tensor]:
    """Return the tokens of a view, its mask, and the targets in it, (B, S, M)."""
    tokens, mask = reconstruction.masked_view(view)
    assert mask.targets is not None
    return tokens, mask, mask.targets


@torch.no_grad()
def targets(teacher: TokenEncoder, tokens: Tokens) -> Tensor:
    """-> (B, N, D): the teacher's features of all tokens, each normalized over its channels, in single precision."""
    features = teacher(tokens)[:, teacher.num_prefix :].float()
    return F.layer_norm(features, features.shape[-1:])


def at_targets(predicted: Tensor, features: Tensor, numbers: Tensor, beta: float = 1.0) -> Tensor:
    """(B, S, M, D), (B, N, D), (B, S, M) -> (): smooth L1 of predictions of the tokens with these numbers.

    beta: where its square ends, 0: nowhere.
    """
    picked = features.take_along_dim(numbers.flatten(1)[..., None], dim=1)
    return F.smooth_l1_loss(predicted.flatten(1, 2).float(), picked, beta=beta)


def at_visible(predicted: Tensor, features: Tensor, mask: IndexMask, grid: Grid, beta: float = 1.0) -> Tensor:
    """(B, S, K, D), (B, N, D) -> (): smooth L1 of visible tokens over the root of their distance to their targets.

    V-JEPA 2.1 (arXiv 2603.14482), its dense term; the distance is that to the nearest token of the set. beta: as of
    `at_targets`.
    """
    assert mask.targets is not None
    place = places(grid, features.device).to(features)
    apart = torch.cdist(place[mask.keep][:, None], place[mask.targets]).amin(dim=3)  # (B, S, K)
    picked = features.take_along_dim(mask.keep[..., None], dim=1)[:, None].expand_as(predicted)
    error = F.smooth_l1_loss(predicted.float(), picked, beta=beta, reduction="none").mean(dim=3)
    return (error / apart.sqrt()).mean()
