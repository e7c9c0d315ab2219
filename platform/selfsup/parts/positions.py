"""Position embeddings of tokens."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts.tokens import Grid, places

BASE = 10000.0  # of the wavelengths, as in "Attention is all you need" (arXiv 1706.03762)
INTERPOLATIONS = {1: "linear", 2: "bicubic", 3: "trilinear"}  # of learned positions, by the rank of their grid


def sincos(grid: Grid, dim: int) -> Tensor:
    """-> (N, dim): fixed sine-cosine embedding of the places of a grid of any rank, the last axis fastest.

    Each axis has a part of the channels, the last axis the first part, each part as [sines, cosines]: for two axes
    MAE's layout (arXiv 2111.06377), where the first half encodes the column and dim is a multiple of 4; timm's and
    MoCo v3's layouts differ. Channels beyond dim are cut, as V-JEPA's (arXiv 2404.08471) for three axes.
    """
    assert len(grid) != 2 or dim % 4 == 0, f"a position embedding has 4k channels, not {dim}"
    part = math.ceil(dim / (2 * len(grid)))
    along = places(grid).double().unbind(1)
    return torch.cat([_waves(axis, part) for axis in reversed(along)], dim=1)[:, :dim].float()


def resized(position: Tensor, old: Grid, new: Grid, offset: float = 0.0) -> Tensor:
    """(places of the old grid, D) -> (places of the new, D): as DINO's (arXiv 2104.14294) for crops

    offset: tokens a side that are counted beyond the new grid's own: at a scale that is not of the sizes, places shift.
    """
    whole = position.mT.reshape(1, -1, *old)
    scale = [(length + offset) / own for length, own in zip(new, old, strict=True)] if offset else None
    position = F.interpolate(whole, size=None if scale else new, scale_factor=scale, mode=INTERPOLATIONS[len(new)])
    return position[0].flatten(1).mT


def _waves(place: Tensor, number: int) -> Tensor:
    """(N,) -> (N, 2 * number)"""
    angle = place[:, None] * BASE ** (-torch.arange(number, dtype=torch.float64) / number)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
