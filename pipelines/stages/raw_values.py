"""Features of raw samples, loaded views (B, *S, C), with which a table compares those of encoders."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS = 32  # raw pixels are compared at most at this resolution: more of them make kNN worse and a linear probe slow
Pool = Callable[..., Tensor]
POOLS: dict[int, tuple[int, Pool]] = {  # places along each axis, of so many axes: about a thousand in all
    1: (1024, F.adaptive_avg_pool1d),
    2: (PIXELS, F.adaptive_avg_pool2d),
    3: (10, F.adaptive_avg_pool3d),
}


def pooled(raw: Tensor) -> Tensor:
    """-> (B, D): colors of at most 32 x 32 places, 10 x 10 x 10, or 1024"""
    return _small(raw).flatten(1)


def places(raw: Tensor) -> Tensor:
    """-> (B, T, C): a color a place"""
    return _small(raw).flatten(2).mT


def squares(raw: Tensor, side: int) -> Tensor:
    """-> (B, T, P): the values of squares of `side` pixels a side"""
    value = raw.movedim(-1, 1).float()
    return F.unfold(value / 255 if raw.dtype == torch.uint8 else value, side, stride=side).mT


def _small(raw: Tensor) -> Tensor:
    """(B, *S, C) -> (B, C, *s)"""
    value = raw.movedim(-1, 1)
    most, pool = POOLS[value.ndim - 2]
    pooled: Tensor = pool(value.float(), [min(most, side) for side in value.shape[2:]])
    return pooled / 255 if raw.dtype == torch.uint8 else pooled
