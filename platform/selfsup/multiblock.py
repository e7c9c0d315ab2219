"""The masks of I-JEPA: several rectangles to be predicted, and a large one without them to predict them from.

B: batch, S: targets of a sample, N: tokens of a grid.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule, between
from selfsup.parts.tokens import Grid

COMPARED = 128  # masks of a step of I-JEPA, of which the smallest says how many tokens all see: a GPU's in its code


@dataclass(frozen=True)
class MultiBlockMask(MaskRule):
    """Several rectangles are targets; the encoder sees a large one, without them.

    I-JEPA (arXiv 2301.08243), section 3. All samples of a step have rectangles of the same sizes. scale, context:
    ranges of their areas, as shares of the grid. aspect: range of a target's height over its width. least: tokens of
    which an encoder sees more. All of a step see as many as the smallest of COMPARED masks that are drawn for it; a
    sample that would see less takes the largest of these.
    """

    targets: int = 4
    scale: tuple[float, float] = (0.15, 0.2)
    aspect: tuple[float, float] = (0.75, 1.5)
    context: tuple[float, float] = (0.85, 1.0)
    least: int = 10

    def num_shared(self, grid: Grid) -> int:  # noqa: ARG002
        return 2 + COMPARED * self._corners

    def num_draws(self, grid: Grid) -> int:
        return self.num_shared(grid) + self._corners

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        context, targets, seen = self._drawn(noise, grid)
        assert seen, f"{self.targets} targets leave nothing of a grid of {grid} tokens"
        order = (~context).int().argsort(dim=1, stable=True).to(device)
        numbers = (~targets).int().argsort(dim=2, stable=True)[:, :, : int(targets[0, 0].sum())].to(device)
        return IndexMask(order[:, :seen], order[:, seen:], numbers)

    def typical(self, grid: Grid) -> tuple[int, int]:
        return _typical(self, grid)

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> IndexMask:
        mask, (_, number) = super().blank(samples, grid, device), self.typical(grid)
        assert isinstance(mask, IndexMask)
        return mask._replace(targets=mask.hide[:, None, -number // self.targets :].expand(-1, self.targets, -1))

    @property
    def _corners(self) -> int:
        """Return the draws of the corners of one mask's rectangles."""
        return 2 * (self.targets + 1)

    def _drawn(self, noise: Tensor, grid: Grid) -> tuple[Tensor, Tensor, int]:
        """(B, num_draws) -> (B, N) bool: seen; (B, targets, N) bool; how many of those seen are kept"""
        shared = noise[0, : self.num_shared(grid)]
        target, whole = (_size(float(draw), *ranges, grid) for draw, ranges in zip(shared, self._ranges, strict=False))
        corners = torch.cat([shared[2:].view(COMPARED, -1), noise[:, len(shared) :]]).view(-1, self.targets + 1, 2)
        targets, contexts = _blocks(corners[:, :-1], target, grid), _blocks(corners[:, -1:], whole, grid)
        context = contexts[:, 0] & ~targets.any(dim=1)
        number = context.sum(dim=1)
        enough = number[:COMPARED][number[:COMPARED] > self.least]
        seen, largest = (enough if len(enough) else number[:COMPARED].max()).min(), number[:COMPARED].argmax()
        row = torch.where(number < seen, largest, torch.arange(len(number)))[COMPARED:]
        return context[row], targets[row], int(seen)

    @property
    def _ranges(self) -> tuple[tuple[tuple[float, float], tuple[float, float]], ...]:
        """Return the ranges of area and aspect ratio of targets, and of contexts, which are squares."""
        return (self.scale, self.aspect), (self.context, (1.0, 1.0))


@lru_cache
def _typical(rule: MultiBlockMask, grid: Grid) -> tuple[int, int]:
    """Return the means of 32 steps, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    steps = [rule._drawn(torch.rand(1, rule.num_draws(grid), generator=generator), grid) for _ in range(32)]
    area = round(sum(int(targets[0, 0].sum()) for _, targets, _ in steps) / len(steps))
    return round(sum(seen for *_, seen in steps) / len(steps)), rule.targets * area


def _size(draw: float, scale: tuple[float, float], aspect: tuple[float, float], grid: Grid) -> tuple[int, int]:
    """Return height and width, in whole tokens and less than the grid's, of a rectangle; one draw says both."""
    area, ratio = (low + draw * (high - low) for low, high in (scale, aspect))
    tokens, (rows, columns) = int(math.prod(grid) * area), grid
    return min(round(math.sqrt(tokens * ratio)), rows - 1), min(round(math.sqrt(tokens / ratio)), columns - 1)


def _blocks(corners: Tensor, size: tuple[int, int], grid: Grid) -> Tensor:
    """(n, S, 2) in [0, 1) -> (n, S, N) bool: rectangles, none of which reaches the last row or column, as I-JEPA's."""
    inside = [
        between(room - 1, corner.flatten(), torch.tensor([length]))
        for room, length, corner in zip(grid, size, corners.unbind(2), strict=True)
    ]
    rows, columns = (F.pad(covered, (0, 1)) for covered in inside)
    return (rows[:, :, None] & columns[:, None]).view(*corners.shape[:2], -1)
