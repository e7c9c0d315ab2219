"""Masks of clips: rectangles that are hidden for some frames."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.masks import ROUNDS, IndexMask, MaskRule, between, rectangle
from selfsup.parts.tokens import Grid

LEAST = 5  # a rectangle has a fifth of a frame, at least


@dataclass(frozen=True)
class CubeMask(MaskRule):
    """Rectangles of a fifth of a frame to all of it, each in some frames on end, are left out, and single tokens.

    MaskFeat (arXiv 2112.09133), "cube" masks, by its code's sizes: area and number of frames are uniform, and so is the
    logarithm of the aspect; a cube that would hide too much is passed over. Single tokens fill up to floor(N * ratio),
    as many for all samples.

    Deviation: so many cubes are drawn as a mask of images tries, where the code goes on until a hundred in a row do
    not fit, and leaves masks short.
    """

    ratio: float

    def num_draws(self, grid: Grid) -> int:
        return 6 * ROUNDS + math.prod(grid)

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        covered = self._covered(noise[:, : 6 * ROUNDS], grid).flatten(1)
        order = (noise[:, 6 * ROUNDS :] + covered).argsort(dim=1, stable=True).to(device)  # on one device, equal on all
        seen, _ = self.typical(grid)
        return IndexMask(keep=order[:, :seen], hide=order[:, seen:])

    def typical(self, grid: Grid) -> tuple[int, int]:
        tokens = math.prod(grid)
        targets = math.floor(self.ratio * tokens)
        return tokens - targets, targets

    def _covered(self, draws: Tensor, grid: Grid) -> Tensor:
        """(B, 6 * ROUNDS) -> (B, T, rows, columns) bool"""
        frames, rows, columns = grid
        _, goal = self.typical(grid)
        least, most = rows * columns // LEAST, rows * columns
        covered = torch.zeros(len(draws), *grid, dtype=torch.bool)
        for time, area, aspect, first, top, left in draws.view(-1, ROUNDS, 6).permute(1, 2, 0):
            height, width = rectangle(least + area * (most - least), aspect)
            length = 1 + (time * frames).floor()
            inside = (
                between(frames, first, length)[:, :, None, None]
                & between(rows, top, height)[:, None, :, None]
                & between(columns, left, width)[:, None, None]
            )
            gain = (inside & ~covered).sum((1, 2, 3))
            fits = (height < rows) & (width < columns) & (gain > 0) & (gain <= goal - covered.sum((1, 2, 3)))
            covered |= inside & fits[:, None, None, None]
        return covered
