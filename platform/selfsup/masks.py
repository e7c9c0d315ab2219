"""Which tokens an encoder does not see. B: batch, N: tokens, K: kept tokens."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 32  # rectangles that are tried for a block mask
BLOCK_DRAWS = 2 + 4 * ROUNDS
ATTEMPTS = 10  # rectangles in a row that may not fit
ASPECT = 0.3  # of a rectangle, at least; at most its inverse


class IndexMask(NamedTuple):
    """keep: (B, K) int64, numbers of the tokens that the encoder sees. hide: (B, N - K) int64, those of all others."""

    keep: Tensor
    hide: Tensor

    @property
    def restore(self) -> Tensor:
        """(B, N) int64: where each token stands in [keep, hide]."""
        return torch.cat(self, dim=1).argsort(dim=1)

    @property
    def removed(self) -> Tensor:
        """(B, N) bool"""
        return self.restore >= self.keep.shape[1]


class BoolMask(NamedTuple):
    """where: (B, N) bool, tokens that are replaced by one vector. number: (B,) int64, how many, always on the CPU.

    So the host knows how many there are without waiting for the device.
    """

    where: Tensor
    number: Tensor


def random_mask(noise: Tensor, ratio: float) -> IndexMask:
    """(B, N) -> IndexMask: the int(N * (1 - ratio)) tokens of least noise are kept, in the order of their noise.

    MAE (arXiv 2111.06377), section 3, "Simple implementation". noise is uniform.
    """
    num_tokens = noise.shape[1]
    num_keep = int(num_tokens * (1 - ratio))
    assert 0 < num_keep < num_tokens, f"mask ratio {ratio} keeps {num_keep} of {num_tokens} tokens"
    shuffle = noise.argsort(dim=1, stable=True)  # stable: equal noise gives the same mask on every device
    return IndexMask(keep=shuffle[:, :num_keep], hide=shuffle[:, num_keep:])


def block_mask(
    draws: Tensor, grid: tuple[int, int], *, low: float, high: float, share: float, smallest: int | None
) -> Tensor:
    """(B, BLOCK_DRAWS), in [0, 1) -> (B, N) bool: what rectangles cover, up to a ratio drawn from [low, high].

    BEiT (arXiv 2106.08254), algorithm 1, whose smallest rectangle of tokens is `smallest`, or iBOT's, a ninth of the
    grid. Like there, a mask may stay smaller than its ratio: when rectangles in a row do not fit. Of the samples
    1 - share are not masked.
    """
    rows, columns = grid
    ratio = torch.where(draws[:, 0] < share, low + (high - low) * draws[:, 1], 0.0)
    goal = (ratio * rows * columns).floor()
    smallest = (min(grid) // 3) ** 2 if smallest is None else smallest
    covered = torch.zeros(len(draws), rows, columns, dtype=torch.bool, device=draws.device)
    failed = torch.zeros_like(goal)
    row, column = torch.arange(rows, device=draws.device), torch.arange(columns, device=draws.device)
    for area, aspect, top, left in draws[:, 2:].view(-1, ROUNDS, 4).permute(1, 2, 0):
        room = goal - covered.sum((1, 2))
        size = smallest + area * (room - smallest)
        shape = torch.exp((2 * aspect - 1) * math.log(1 / ASPECT))
        height, width = (size * shape).clamp_min(0).sqrt().round(), (size / shape).clamp_min(0).sqrt().round()
        first, start = (top * (rows - height + 1)).floor(), (left * (columns - width + 1)).floor()
        inside = _between(row, first, height)[:, :, None] & _between(column, start, width)[:, None]
        gain = (inside & ~covered).sum((1, 2))
        fits = (height < rows) & (width < columns) & (gain > 0) & (gain <= room) & (failed < ATTEMPTS)
        covered |= inside & fits[:, None, None]
        failed = torch.where(fits, 0, failed + 1)
    return covered.flatten(1)


def _between(place: Tensor, first: Tensor, length: Tensor) -> Tensor:
    """(n,), (B,), (B,) -> (B, n) bool"""
    return (place >= first[:, None]) & (place < (first + length)[:, None])
