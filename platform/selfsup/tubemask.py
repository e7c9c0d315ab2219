"""The masks of VideoMAE: what is hidden in one frame is hidden in all."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule
from selfsup.parts.tokens import Grid


@dataclass(frozen=True)
class TubeMask(MaskRule):
    """A share of the places along all axes but the first, each chosen independently, is left out all along the first.

    VideoMAE (arXiv 2203.12602), section 3.2, "tube masking"; MAE-ST (arXiv 2205.09113) calls it space-only. As in
    VideoMAE's code, int(P * ratio) of P places are hidden. Tokens are kept in the order of the grid.
    """

    ratio: float

    def num_draws(self, grid: Grid) -> int:
        return math.prod(grid[1:])

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        seen, targets = self.typical(grid)
        assert seen > 0 < targets, f"mask ratio {self.ratio} keeps {seen} of {seen + targets} tokens"
        rank = noise.to(device).argsort(dim=1, stable=True).argsort(dim=1)
        hidden = (rank >= seen // grid[0]).repeat(1, grid[0])
        order = hidden.byte().argsort(dim=1, stable=True)
        return IndexMask(keep=order[:, :seen], hide=order[:, seen:])

    def typical(self, grid: Grid) -> tuple[int, int]:
        hidden = grid[0] * int(self.num_draws(grid) * self.ratio)
        return math.prod(grid) - hidden, hidden
