"""Masks of clips: what is hidden in one frame is hidden in all.

B: batch, N: tokens of a grid.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule, between
from selfsup.multiblock import COMPARED
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


@dataclass(frozen=True)
class TubeBlocksMask(MaskRule):
    """Rectangles of rows and columns, the same in all frames, are targets together; the encoder sees all else.

    V-JEPA (arXiv 2404.08471), section 3.2, "multi-block": 8 blocks of 0.15 of a frame, or 2 of 0.7. All samples of a
    step have blocks of one size. scale: range of their areas, as shares of a frame. aspect: of their heights over their
    widths. As in V-JEPA's code, all see as many tokens as the sample that sees least, and predict as many as the one
    with the fewest targets, the first ones of each: of COMPARED masks that are drawn for the step, one of which a
    sample takes that would see, or predict, fewer. An image is a clip of one frame.
    """

    blocks: int
    scale: tuple[float, float]
    aspect: tuple[float, float] = (0.75, 1.5)

    def num_shared(self, grid: Grid) -> int:  # noqa: ARG002
        return 2 + COMPARED * 2 * self.blocks

    def num_draws(self, grid: Grid) -> int:
        return self.num_shared(grid) + 2 * self.blocks

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        hidden, seen, asked = self._drawn(noise, grid)
        assert seen, f"{self.blocks} blocks leave nothing of a grid of {grid} tokens"
        order = hidden.int().argsort(dim=1, stable=True).to(device)
        targets = (~hidden).int().argsort(dim=1, stable=True)[:, None, :asked].to(device)
        return IndexMask(order[:, :seen], order[:, seen:], targets)

    def typical(self, grid: Grid) -> tuple[int, int]:
        return _typical(self, grid)

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> IndexMask:
        mask, (_, asked) = super().blank(samples, grid, device), self.typical(grid)
        assert isinstance(mask, IndexMask)
        return mask._replace(targets=mask.hide[:, None, -asked:])

    def _drawn(self, noise: Tensor, grid: Grid) -> tuple[Tensor, int, int]:
        """(B, num_draws) -> (B, N) bool: targets; how many others are seen, how many of the targets asked for"""
        *frames, rows, columns = grid
        first = self.num_shared(grid)
        area, ratio = (
            low + float(draw) * (high - low)
            for draw, (low, high) in zip(noise[0, :2], (self.scale, self.aspect), strict=True)
        )
        tokens = int(area * rows * columns)
        height = min(round(math.sqrt(tokens * ratio)), rows)
        width = min(round(math.sqrt(tokens / ratio)), columns)
        corners = torch.cat([noise[0, 2:first].view(COMPARED, -1), noise[:, first:]]).view(-1, self.blocks, 2)
        down, across = (
            between(size, corners[..., axis].flatten(), torch.tensor([length])).view(*corners.shape[:2], -1)
            for axis, (size, length) in enumerate(((rows, height), (columns, width)))
        )
        covered = (down[..., :, None] & across[..., None, :]).any(dim=1).flatten(1)
        number = covered.sum(dim=1)
        open_ones = number[:COMPARED][number[:COMPARED] < rows * columns]
        fewest, most = (int(end) for end in (open_ones if len(open_ones) else number[:COMPARED]).aminmax())
        fits = (number >= fewest) & (number <= most)
        row = torch.where(fits, torch.arange(len(number)), int(fits[:COMPARED].int().argmax()))[COMPARED:]
        time = math.prod(frames)
        return covered[row].repeat(1, time), time * (rows * columns - most), time * fewest


@lru_cache
def _typical(rule: TubeBlocksMask, grid: Grid) -> tuple[int, int]:
    """Return the means of 32 steps, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    steps = [rule._drawn(torch.rand(1, rule.num_draws(grid), generator=generator), grid) for _ in range(32)]
    return round(sum(seen for _, seen, _ in steps) / 32), round(sum(asked for *_, asked in steps) / 32)
