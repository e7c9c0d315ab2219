"""The masks of GMML: groups of tokens that hang together.

B: batch, N: tokens of a grid.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.masks import BoolMask, MaskRule
from selfsup.parts.tokens import Grid

GROUPS, LONGEST = 128, 0.3  # rectangles of a group mask; their sides at most, as a share of the grid's


@dataclass(frozen=True)
class GroupMask(MaskRule):
    """Rectangles of tokens are replaced, anywhere and over each other, until a share of the grid is covered.

    GMML (arXiv 2205.14986), as its code draws them, but in whole tokens: shares are uniform from a half, at most, to
    `ratio`, sides from a token to 0.3 of the grid's. The last rectangle may cover more.
    """

    ratio: float

    def num_draws(self, grid: Grid) -> int:  # noqa: ARG002
        return 1 + 4 * GROUPS

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> BoolMask:
        rows, columns = grid
        low = min(0.5, self.ratio)
        goal = (low + (self.ratio - low) * noise[:, 0]) * rows * columns
        covered = torch.zeros(len(noise), rows, columns, dtype=torch.bool)
        for top, left, height, width in noise[:, 1:].view(-1, GROUPS, 4).permute(1, 2, 0):
            missing = covered.sum((1, 2)) < goal
            inside = _within(rows, top, height)[:, :, None] & _within(columns, left, width)[:, None]
            covered |= inside & missing[:, None, None]
        where = covered.flatten(1)
        return BoolMask(where.to(device), where.sum(dim=1))

    def typical(self, grid: Grid) -> tuple[int, int]:
        tokens = math.prod(grid)
        return tokens, round((min(0.5, self.ratio) + self.ratio) / 2 * tokens)


def _within(size: int, start: Tensor, length: Tensor) -> Tensor:
    """(B,), (B,) in [0, 1) -> (B, size) bool: a segment of at most LONGEST of an axis, from any of its tokens on."""
    first, token = (start * size).floor()[:, None], torch.arange(size)
    return (token >= first) & (token <= first + (length * max(1, int(LONGEST * size))).floor()[:, None])
