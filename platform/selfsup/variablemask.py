"""The masks of MAGE: of masked tokens, whose number varies, an encoder sees some as masked, and others not at all.

B: batch, N: tokens of a grid.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from selfsup.masks import IndexMask, MaskRule
from selfsup.parts.tokens import Grid

SURE = 1e-12  # probabilities are kept so far from 0 and 1, whose quantiles are infinite


@dataclass(frozen=True)
class VariableMask(MaskRule):
    """A share of the tokens is masked, drawn for each step; the share `least` of all, masked ones, is left out.

    MAGE (arXiv 2211.09117), section 3.1, "Masking strategy", and its code: shares are of a normal distribution with
    this mean and deviation, cut to [least, 1], and numbers are rounded up. `keep` has what is not masked, then what is
    seen as masked; `targets` are all masked tokens, one set, those first that are in `keep`.
    """

    least: float
    mean: float
    deviation: float

    def num_shared(self, grid: Grid) -> int:  # noqa: ARG002
        return 1

    def num_draws(self, grid: Grid) -> int:
        return 1 + math.prod(grid)

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        (seen, _), tokens = self.typical(grid), math.prod(grid)
        assert 0 < seen < tokens, f"a least share of {self.least} keeps {seen} of {tokens} tokens"
        order = noise[:, 1:].to(device).argsort(dim=1, descending=True, stable=True)
        return _mask(order, seen, math.ceil(tokens * self.share(float(noise[0, 0]))))

    def typical(self, grid: Grid) -> tuple[int, int]:
        tokens, normal = math.prod(grid), NormalDist(self.mean, self.deviation)
        inside = max(normal.cdf(1) - normal.cdf(self.least), SURE)
        mean = self.mean + self.deviation**2 * (normal.pdf(self.least) - normal.pdf(1)) / inside
        return tokens - math.ceil(tokens * self.least), math.ceil(tokens * min(max(mean, self.least), 1))

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> IndexMask:
        number = torch.arange(math.prod(grid), device=device).expand(samples, -1)
        return _mask(number, *self.typical(grid))

    def share(self, draw: float) -> float:
        """Return the share at this quantile of the cut distribution, 0 <= draw < 1."""
        normal = NormalDist(self.mean, self.deviation)
        low, high = normal.cdf(self.least), normal.cdf(1)
        quantile = min(max(low + draw * (high - low), SURE), 1 - SURE)
        return min(max(normal.inv_cdf(quantile), self.least), 1)


def _mask(order: Tensor, seen: int, masked: int) -> IndexMask:
    """(B, N) int64, and how many of these are in `keep`, and masked -> the mask: the last ones are left out."""
    return IndexMask(order[:, :seen], order[:, seen:], order[:, None, order.shape[1] - masked :])
