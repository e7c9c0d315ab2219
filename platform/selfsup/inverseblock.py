"""The mask of CAPI: an encoder sees one rectangle, and a few of the tokens around it are to be predicted."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule, between
from selfsup.parts.tokens import Grid

ASPECT = 0.5  # of the rectangle, at least; at most its inverse
DRAWS = 5  # aspect, place and shift along both axes


@dataclass(frozen=True)
class InverseBlockMask(MaskRule):
    """All tokens are left out but a rectangle, which is shifted anywhere and goes on at the other side of the grid.

    CAPI (arXiv 2502.08769), "inverse block masking" with roll. ratio: of tokens that are left out. asked: share of
    these that are predicted, one at least. Beyond the ratio the rectangle loses its last tokens, row by row.
    """

    ratio: float
    asked: float

    def num_draws(self, grid: Grid) -> int:
        return DRAWS + math.prod(grid) - self.typical(grid)[0]

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        seen, asked = self.typical(grid)
        order = (~self._rectangle(noise, grid)).int().argsort(dim=1, stable=True)
        hide = order[:, seen:]
        chosen = noise[:, DRAWS:].argsort(dim=1, stable=True)[:, :asked]
        targets = hide.gather(1, chosen)[:, None]
        return IndexMask(*(numbers.to(device) for numbers in (order[:, :seen], hide, targets)))

    def typical(self, grid: Grid) -> tuple[int, int]:
        tokens = math.prod(grid)
        hidden = int(tokens * self.ratio)
        return tokens - hidden, min(hidden, max(1, int(hidden * self.asked)))

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> IndexMask:
        seen, asked = self.typical(grid)
        number = torch.arange(math.prod(grid), device=device).expand(samples, -1)
        return IndexMask(number[:, :seen], number[:, seen:], number[:, None, seen : seen + asked])

    def _rectangle(self, noise: Tensor, grid: Grid) -> Tensor:
        """(B, num_draws) -> (B, N) bool"""
        (rows, columns), (seen, _) = grid, self.typical(grid)
        aspect, top, left, down, right = noise[:, :DRAWS].unbind(1)
        low = max(math.log(ASPECT), math.log(seen / columns**2))
        high = min(-math.log(ASPECT), math.log(rows**2 / seen))
        shape = torch.exp(low + (high - low) * aspect)
        height = (seen * shape).sqrt().ceil().clamp_max(rows)
        width = (seen / shape).sqrt().ceil().clamp_max(columns)
        inside = (between(rows, top, height)[:, :, None] & between(columns, left, width)[:, None]).flatten(1)
        inside &= inside.cumsum(dim=1) <= seen
        row = (torch.arange(rows) - (down * rows).floor().long()[:, None]) % rows
        column = (torch.arange(columns) - (right * columns).floor().long()[:, None]) % columns
        return inside.gather(1, (row[:, :, None] * columns + column[:, None]).flatten(1))
