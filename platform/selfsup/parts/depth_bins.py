"""Depth as shares of bins, the loss of what is guessed, and its errors, as DINOv2 (arXiv 2304.07193) has them on NYU.

B: images, T: tokens of a square grid, S: pixels a side.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist
from selfsup.parts.precision import no_autocast

LEAST = 0.001  # meters: of the bins, and in logarithms
FLOOR = 0.1  # added to every logit that is cut at 0
MEAN_WEIGHT = 0.15
WITHIN = 1.25


class DepthBins(NamedTuple):
    """Bins of depth, spaced evenly from a millimeter to `most` meters; pixels beyond it are left out."""

    number: int
    most: float

    def guess(self, logits: Tensor, side: int) -> Tensor:
        """(B, T, bins) -> (B, S, S): meters, the mean of the bins by their shares, interpolated between tokens"""
        share = logits.relu() + FLOOR
        bins = torch.linspace(LEAST, self.most, self.number, device=share.device)
        with no_autocast(share):
            depth = (share @ bins) / share.sum(-1)
        grid = math.isqrt(depth.shape[1])
        coarse = depth.reshape(len(depth), 1, grid, grid)
        return F.interpolate(coarse, (side, side), mode="bilinear").squeeze(1)

    def loss(self, guess: Tensor, true: Tensor) -> Tensor:
        """(B, S, S), (B, S, S) -> the loss over all pixels in range of all processes; 0 where there are fewer than two

        That of AdaBins, arXiv 2011.14141, as DINOv2 has it: the root of the variance of log differences plus 0.15 times
        their squared mean. On the meta device all pixels are in range.
        """
        difference = (guess + LEAST).log() - (true + LEAST).log()
        difference = difference.flatten() if guess.is_meta else difference[self.known(true)]
        if dist.world_size() > 1:
            return _of_processes(difference)
        return _root(difference.var(), difference.mean()) if len(difference) > 1 else guess.sum() * 0

    def errors(self, guess: Tensor, true: Tensor) -> Tensor:
        """(S, S), (S, S) -> (3,): rmse, abs_rel and the share within a factor; NaN without a pixel in range"""
        known = self.known(true)
        own, expected = guess[known].double(), true[known].double()
        ratio = torch.maximum(own / expected, expected / own)
        square = (own - expected).square().mean().sqrt()
        return torch.stack([square, ((own - expected).abs() / expected).mean(), (ratio < WITHIN).double().mean()])

    def known(self, true: Any) -> Any:
        """Return which pixels have a depth in the range of the bins."""
        return (true > LEAST) & (true < self.most)


def _root(var: Tensor, mean: Tensor) -> Tensor:
    return (var + MEAN_WEIGHT * mean.square()).sqrt()


def _of_processes(difference: Tensor) -> Tensor:
    """(P,) -> the loss over the differences of all processes, of which each has any number"""
    mean = difference.sum() / max(1, len(difference))
    own = torch.stack([mean.new_tensor(len(difference)), mean, (difference - mean).square().sum()])
    number, means, squares = dist.gather(own[None]).unbind(1)
    total = number.sum()
    if total < 2:
        return means.sum() * 0
    middle = (number * means).sum() / total
    return _root((squares + number * (means - middle).square()).sum() / (total - 1), middle)
