"""Multi-crop: views of several sizes through one encoder, all of one size in one call, which is faster.

SwAV (arXiv 2006.09882), section 3.2. An encoder that packs takes all sizes in one call.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from selfsup.batch import View
from selfsup.knob import Range
from selfsup.parts import tokens
from selfsup.parts.tokens import Tokens

Cover = tuple[Tensor, Tensor]
Knob = dict[str, Any]  # all of a knob but its default, which each method has from its paper


CROP_MIN: Knob = {"doc": "smallest large crop, as a share of the image", "sweep": Range(0.05, 0.5), "gt": 0, "le": 1}
LARGE_CROPS: Knob = {"doc": "large crops", "ge": 1, "le": 100}
LOCAL_CROPS: Knob = {"doc": "small crops", "ge": 0, "le": 100}
LOCAL_SIZE: Knob = {"doc": "pixels a side of a small crop", "gt": 0}
LOCAL_MIN: Knob = {"doc": "smallest small crop, as a share of the image", "gt": 0, "le": 1}
LOCAL_MAX: Knob = {"doc": "largest small crop, as a share of the image", "gt": 0, "le": 1}


class PoolingEncoder(Protocol):
    """An encoder, of which parts know nothing else."""

    def pooled_each(self, views: Sequence[Tokens | Tensor]) -> list[Tensor]: ...


def pooled(encoder: PoolingEncoder, views: Sequence[View]) -> list[Tensor]:
    """V views of B samples -> V of (B, D), in order. Batch normalization sees all views of a size together."""
    by_size: dict[torch.Size, list[int]] = {}
    for number, view in enumerate(views):
        by_size.setdefault(_shape(view.value), []).append(number)
    sizes = [joined([views[number] for number in numbers]) for numbers in by_size.values()]
    vectors: dict[int, Tensor] = {}
    for numbers, together in zip(by_size.values(), encoder.pooled_each(sizes), strict=True):
        vectors.update(zip(numbers, together.chunk(len(numbers)), strict=True))
    return [vectors[number] for number in range(len(views))]


class CroppingEncoder(Protocol):
    """A ViT, of which parts know nothing else."""

    def each(self, views: Sequence[Tokens], covers: Sequence[Cover | None]) -> list[Tensor]: ...


def hidden(
    encoder: CroppingEncoder, large: Tokens | Tensor, small: Sequence[View], cover: Cover
) -> tuple[Tensor, Tensor]:
    """(B, N, P), V views of b samples -> (B, T, D), (B + V * b, D): of large crops, and class tokens of all crops.

    cover: of large crops: (B, N) bool, and (1, D), the embedding of tokens there.
    """
    views = [large, joined(small)] if small else [large]
    crops = [view for view in views if isinstance(view, Tokens)]
    states = encoder.each(crops, [cover, None][: len(crops)])
    return states[0], torch.cat([state[:, 0] for state in states])


def joined(views: Sequence[View]) -> Tokens | Tensor:
    """V views of B samples, of one size -> (V * B, ...), one view after the other."""
    images = [view.value for view in views if isinstance(view.value, Tensor)]
    if images:
        return torch.cat(images)
    return tokens.joined([view.value for view in views if isinstance(view.value, Tokens)])


def _shape(value: Tokens | Tensor) -> torch.Size:
    return value.shape if isinstance(value, Tensor) else value.value.shape
