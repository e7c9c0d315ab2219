"""The masks of MultiMAE: an encoder sees a number of tokens of several modalities, shared among these at random.

B: batch, T: modalities, N: tokens of a grid, K: tokens that are seen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule
from selfsup.parts.tokens import Grid

LEAST = 1e-12  # of a draw, and of a share before it is divided by their sum


@dataclass(frozen=True)
class DirichletMask(MaskRule):
    """A number of the tokens of T modalities of one grid is seen: of each a share, Dirichlet-distributed and rounded.

    MultiMAE (arXiv 2204.01678), section 3.3, and its code: tokens of a modality are chosen at random; where rounding,
    or a modality that has too few, leaves more or fewer than K, some of the chosen ones go, or others come, at random.
    Numbers are of the tokens of one modality after those of another: the second's are N to 2N - 1. visible: K, as a
    share of N. alpha: concentration, smaller for shares that differ more.
    """

    visible: float
    modalities: int
    alpha: float = 1.0

    def num_draws(self, grid: Grid) -> int:
        return self.modalities * (1 + 2 * math.prod(grid))

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        count, (seen, hidden) = self.modalities, self.typical(grid)
        assert seen > 0 < hidden, f"{seen} of {seen + hidden} tokens"
        shares, within, ties = noise.tensor_split([count, count + seen + hidden], dim=1)
        number = (self._shares(shares) * seen).round().to(device)
        order = within.to(device).reshape(len(noise), count, -1).argsort(dim=2, stable=True).argsort(dim=2)
        is_chosen = (order < number[:, :, None]).flatten(1)
        shuffle = (ties.to(device) - is_chosen.double()).argsort(dim=1, stable=True)
        return IndexMask(keep=shuffle[:, :seen], hide=shuffle[:, seen:])

    def typical(self, grid: Grid) -> tuple[int, int]:
        seen = round(self.visible * math.prod(grid))
        return seen, self.modalities * math.prod(grid) - seen

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> IndexMask:
        seen, hidden = self.typical(grid)
        number = torch.arange(seen + hidden, device=device).expand(samples, -1)
        return IndexMask(keep=number[:, :seen], hide=number[:, seen:])

    def _shares(self, noise: Tensor) -> Tensor:
        """(B, T) in [0, 1) -> (B, T): Dirichlet-distributed, as variates of Gamma(alpha) over their sum"""
        from scipy.special import gammaincinv

        gamma = torch.from_numpy(gammaincinv(self.alpha, noise.double().clamp(min=LEAST).numpy())).clamp(min=LEAST)
        return gamma / gamma.sum(1, keepdim=True)
