"""Hiera as an encoder that leaves out mask units: a hierarchical ViT, most of whose attention stays within a unit.

Ryali, Hu, Bolya, Wei, Fan, Huang, Aggarwal, Chowdhury, Poursaeed, Hoffman, Malik, Li and Feichtenhofer, "Hiera: a
hierarchical vision transformer without the bells-and-whistles", ICML 2023, arXiv:2306.00989, section 3.

B: batch, U: kept mask units, N: tokens, K: kept tokens, P: values of a patch, D_i: channels of a resolution.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selfsup.families import POOLINGS, hiera_patch
from selfsup.masks import squares
from selfsup.parts.patch import pixels, unpatchify
from selfsup.parts.pieces import Maps, in_pieces
from selfsup.parts.tokens import Grid, Tokens
from selfsup.pooled_encoder import PooledEncoder

UNIT = 2  # tokens along each axis of a mask unit, at the end of the trunk


class HieraEncoder(PooledEncoder):
    """A Hiera that sees tokens, those that it ends in while MAE trains it, whole mask units of which may be left out.

    grid: tokens along each axis of the samples that it is built for. patch_values: P. It has no prefix tokens.
    """

    patch: int
    unit_of: Tensor  # (N,) int64
    num_prefix = 0

    def __init__(self, trunk: Any, dim: int, name: str) -> None:
        super().__init__(trunk, dim, name)
        self.patch = hiera_patch(trunk)
        self.grid: Grid = tuple(UNIT * number for number in trunk.mask_spatial_shape)
        self.patch_values: int = trunk.in_chans * self.patch ** len(self.grid)
        self._ends = [*trunk.stage_ends[:POOLINGS], trunk.stage_ends[-1]]
        self.register_buffer("unit_of", _unit_of(self.grid), persistent=False)

    def forward(self, tokens: Tokens, keep: Tensor) -> Tensor:
        """(B, N, P) tokens in the order of the grid, (B, K) -> (B, K, D), after the final norm.

        keep: numbers of the tokens to process, unit by unit, each unit's by row: as `RandomMask` lists squares.
        """
        return self.normed(self.scales(tokens, keep)[-1])

    def scales(self, tokens: Tokens, keep: Tensor) -> Maps:
        """-> (B, U, h_i, w_i, D_i) of each resolution, the finest first: the kept units' maps, before the norm.

        Pixels of other units are zero, as the patch embedding looks across borders.
        """
        whole = self.unit_of.new_ones(len(keep), len(self.unit_of), dtype=torch.bool)
        hidden = whole.scatter(1, keep, torch.zeros_like(keep, dtype=torch.bool))[..., None]
        images = unpatchify(tokens.value.masked_fill(hidden, 0.0), grid=tokens.grid, patch=self.patch)
        units = self.unit_of[keep[:, :: UNIT ** len(self.grid)]]
        return in_pieces(self._scales, images, self.pieces, self.trunk, units)

    def normed(self, last: Tensor) -> Tensor:
        """(B, U, h, w, D) -> (B, K, D): after the norm that stands behind the pooling in evaluation."""
        normed: Tensor = self.trunk.head.norm(last.flatten(1, -2))
        return normed

    def spatial(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, D, h, w): the features before pooling."""
        return self._through(lambda images: (self.trunk.forward_intermediates(images)[1][-1],), view)[0]

    def pooled_and_spatial(self, view: Tokens | Tensor) -> tuple[Tensor, Tensor]:
        return self.pooled(view), self.spatial(view)

    def _scales(self, images: Tensor, units: Tensor) -> Maps:
        """(B, C, *S), (B, U) -> as of `scales`"""
        trunk, maps = self.trunk, []
        hidden = trunk.unroll(trunk._pos_embed(trunk.patch_embed(images)))  # (B, tokens of a unit * units, D)
        by_unit = hidden.unflatten(1, (-1, math.prod(trunk.mask_spatial_shape)))
        hidden = by_unit.take_along_dim(units[:, None, :, None], dim=2).flatten(1, 2)
        for number, block in enumerate(trunk.blocks):
            hidden = block(hidden)
            if number in self._ends:
                maps.append(trunk.reroll(hidden, number, mask=units))  # any mask keeps units apart
        return tuple(maps)

    def _through(self, encode: Callable[[Tensor], Maps], view: Tokens | Tensor) -> Maps:
        return super()._through(encode, pixels(view, self.patch))


def _unit_of(grid: Grid) -> Tensor:
    """-> (N,) int64: the mask unit of each token."""
    members = squares(grid, UNIT)
    number = torch.arange(len(members))[:, None].expand_as(members)
    return torch.empty(members.numel(), dtype=torch.int64).scatter_(0, members.flatten(), number.flatten())
