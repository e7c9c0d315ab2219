"""Masks, which say what an encoder does not see of a view, and the rules that draw them.

A new mask is one frozen dataclass, here or in a module of its own: the stream, plans, pictures and tests call a rule
and know none by name. B: batch, N: tokens of a grid, K: kept tokens.
"""

import abc
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.parts.tokens import Grid

ROUNDS = 32  # rectangles that are tried for a block mask
ATTEMPTS = 10  # rectangles in a row that may not fit
ASPECT = 0.3  # of a rectangle, at least; at most its inverse


class IndexMask(NamedTuple):
    """Masks by token numbers. keep: (B, K) int64, seen by the encoder. hide: (B, N - K) int64, all others.

    targets: (B, S, M) int64, those of them that are to be predicted, in S sets that may overlap; None: all, as one set.
    """

    keep: Tensor
    hide: Tensor
    targets: Tensor | None = None

    @property
    def order(self) -> Tensor:
        """-> (B, N) int64: [keep, hide], a permutation of the tokens."""
        return torch.cat([self.keep, self.hide], dim=1)

    @property
    def restore(self) -> Tensor:
        """-> (B, N) int64: the place of each token in `order`."""
        return self.order.argsort(dim=1)

    @property
    def removed(self) -> Tensor:
        """-> (B, N) bool: the tokens in `hide`."""
        return self.restore >= self.keep.shape[1]


class BoolMask(NamedTuple):
    """Masks as booleans. where: (B, N), tokens to be replaced by one vector. number: (B,) int64, their counts.

    number is on the CPU always, so that the host knows it without waiting for the device.
    """

    where: Tensor
    number: Tensor

    @property
    def removed(self) -> Tensor:
        """-> (B, N) bool: `where`, by the name that all masks have."""
        return self.where


Mask = IndexMask | BoolMask


class MaskRule(abc.ABC):
    """The distribution of a view's masks: a pure function of the grid and of uniform random numbers."""

    @abc.abstractmethod
    def num_draws(self, grid: Grid) -> int:
        """Return how many random numbers the mask of a sample takes."""

    def num_shared(self, grid: Grid) -> int:  # noqa: ARG002
        """Return how many of them, the first ones, are the same for all samples of a step, on whichever worker."""
        return 0

    @abc.abstractmethod
    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> Mask:
        """(B, num_draws) in [0, 1), on the CPU -> B masks, on `device`."""

    @abc.abstractmethod
    def typical(self, grid: Grid) -> tuple[int, int]:
        """Return how many tokens of a sample the encoder sees, and how many are to be predicted, on average."""

    def blank(self, samples: int, grid: Grid, device: torch.device | str) -> Mask:
        """Return masks of typical size that hide the last tokens, for plans: nothing is drawn."""
        tokens, (seen, targets) = math.prod(grid), self.typical(grid)
        number = torch.arange(tokens, device=device).expand(samples, -1)
        if seen < tokens:
            return IndexMask(keep=number[:, :seen], hide=number[:, seen:])
        return BoolMask(number >= tokens - targets, torch.full((samples,), targets, device="cpu"))


@dataclass(frozen=True)
class RandomMask(MaskRule):
    """A share of the tokens, each chosen independently, is left out.

    MAE (arXiv 2111.06377), section 3, "Simple implementation": the int(N * (1 - ratio)) tokens of least noise are kept,
    in the order of their noise. unit: tokens along each axis of the squares that stay or go together, as 4 x 4 in Pixio
    (arXiv 2512.15715), by which the grid must divide; N counts these squares.
    """

    ratio: float
    unit: int = 1

    def num_draws(self, grid: Grid) -> int:
        return math.prod(size // self.unit for size in grid)

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        seen, targets = self.typical(grid)
        assert seen > 0 < targets, f"mask ratio {self.ratio} keeps {seen} of {seen + targets} tokens"
        shuffle = noise.to(device).argsort(dim=1, stable=True)  # stable: equal noise, the same mask on every device
        if self.unit > 1:
            shuffle = squares(grid, self.unit).to(device)[shuffle].flatten(1)
        return IndexMask(keep=shuffle[:, :seen], hide=shuffle[:, seen:])

    def typical(self, grid: Grid) -> tuple[int, int]:
        seen: int = int(self.num_draws(grid) * (1 - self.ratio)) * self.unit ** len(grid)
        return seen, math.prod(grid) - seen


@dataclass(frozen=True)
class GridMask(MaskRule):
    """All tokens are left out but a regular grid of them: the first of every `stride` by `stride`, as one of four.

    MAE (arXiv 2111.06377), figure 6, "grid-wise sampling".
    """

    stride: int = 2

    def num_draws(self, grid: Grid) -> int:  # noqa: ARG002
        return 0

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        on_grid = torch.zeros(grid, dtype=torch.bool)
        on_grid[tuple(slice(None, None, self.stride) for _ in grid)] = True
        keep, hide = (
            where.flatten().nonzero()[:, 0].to(device).expand(len(noise), -1) for where in (on_grid, ~on_grid)
        )
        return IndexMask(keep, hide)

    def typical(self, grid: Grid) -> tuple[int, int]:
        seen = math.prod(math.ceil(size / self.stride) for size in grid)
        return seen, math.prod(grid) - seen


@dataclass(frozen=True)
class AxisMask(MaskRule):
    """Shares of the places along each axis, each chosen independently, are left out with all tokens at them.

    Audio-MAE (arXiv 2207.06405), figure 2: masks in time, in frequency, and in both. ratios: of the first axes, 0 for
    others; the int(size * (1 - ratio)) places of least noise along an axis are kept, in the order of the grid.
    """

    ratios: tuple[float, ...]

    def num_draws(self, grid: Grid) -> int:
        return sum(self._draws(grid))

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        hidden = torch.zeros(len(noise), *grid, dtype=torch.bool)
        for axis, part in enumerate(noise.split_with_sizes(self._draws(grid), dim=1)):
            rank = part.argsort(dim=1, stable=True).argsort(dim=1)
            shape = [len(noise), *(part.shape[1] if other == axis else 1 for other in range(len(grid)))]
            hidden |= (rank >= self._kept(grid)[axis]).view(shape)
        order = hidden.flatten(1).byte().argsort(dim=1, stable=True).to(device)
        seen, _ = self.typical(grid)
        return IndexMask(keep=order[:, :seen], hide=order[:, seen:])

    def typical(self, grid: Grid) -> tuple[int, int]:
        seen = math.prod((*self._kept(grid), *grid[len(self.ratios) :]))
        return seen, math.prod(grid) - seen

    def _draws(self, grid: Grid) -> list[int]:
        return list(grid[: len(self.ratios)])

    def _kept(self, grid: Grid) -> list[int]:
        return [int(size * (1 - ratio)) for size, ratio in zip(grid, self.ratios, strict=False)]


@dataclass(frozen=True)
class SquareMask(MaskRule):
    """A share of the squares of `side` by `side` tokens, each chosen independently, is replaced.

    SimMIM (arXiv 2111.09886), section 3.2, whose squares have 32 pixels a side. Their number is rounded up, as in the
    authors' code. The grid must divide into them.
    """

    ratio: float
    side: int

    def num_draws(self, grid: Grid) -> int:
        return math.prod(size // self.side for size in grid)

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> BoolMask:
        _, targets = self.typical(grid)
        shuffle = noise.argsort(dim=1, stable=True)[:, : targets // self.side ** len(grid)]
        replaced = squares(grid, self.side)[shuffle].flatten(1)
        where = torch.zeros(len(noise), math.prod(grid), dtype=torch.bool).scatter_(1, replaced, True)
        return BoolMask(where.to(device), torch.full((len(noise),), targets))

    def typical(self, grid: Grid) -> tuple[int, int]:
        number = math.ceil(self.num_draws(grid) * self.ratio)
        return math.prod(grid), number * self.side ** len(grid)


@dataclass(frozen=True)
class BlockMask(MaskRule):
    """Rectangles of tokens are replaced, up to a ratio drawn from [low, high].

    BEiT (arXiv 2106.08254), algorithm 1. share: of samples that are masked at all. smallest: tokens of the smallest
    rectangle; None: a ninth of the grid, as iBOT's. Like there, a mask may stay smaller than its ratio: when rectangles
    in a row do not fit.
    """

    low: float
    high: float
    share: float = 1.0
    smallest: int | None = None

    def num_draws(self, grid: Grid) -> int:  # noqa: ARG002
        return 2 + 4 * ROUNDS

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> BoolMask:
        where = self._covered(noise, grid).flatten(1)
        return BoolMask(where.to(device), where.sum(dim=1))

    def typical(self, grid: Grid) -> tuple[int, int]:
        tokens = math.prod(grid)
        return tokens, round(self.share * (self.low + self.high) / 2 * tokens)

    def _covered(self, draws: Tensor, grid: Grid) -> Tensor:
        """(B, num_draws) -> (B, rows, columns) bool"""
        rows, columns = grid
        goal = (self._ratio(draws) * rows * columns).floor()
        smallest = (min(grid) // 3) ** 2 if self.smallest is None else self.smallest
        covered = torch.zeros(len(draws), rows, columns, dtype=torch.bool)
        failed = torch.zeros_like(goal)
        for area, aspect, top, left in draws[:, 2:].view(-1, ROUNDS, 4).permute(1, 2, 0):
            room = goal - covered.sum((1, 2))
            height, width = rectangle(smallest + area * (room - smallest), aspect)
            inside = between(rows, top, height)[:, :, None] & between(columns, left, width)[:, None]
            gain = (inside & ~covered).sum((1, 2))
            fits = (height < rows) & (width < columns) & (gain > 0) & (gain <= room) & (failed < ATTEMPTS)
            covered |= inside & fits[:, None, None]
            failed = torch.where(fits, 0, failed + 1)
        return covered

    def _ratio(self, draws: Tensor) -> Tensor:
        """(B, num_draws) -> (B,): 0 for samples that are not masked."""
        return torch.where(draws[:, 0] < self.share, self.low + (self.high - self.low) * draws[:, 1], 0.0)


@dataclass(frozen=True)
class FilledBlockMask(MaskRule):
    """Rectangles of tokens are left out, as `BlockMask` draws them, and single ones up to an exact number.

    MAE (arXiv 2111.06377), figure 6, "block-wise sampling": an encoder that sees no masked token needs equally many
    visible ones of every sample, which rectangles alone miss by one token on average. Of clips the same are left out in
    all frames: MaskFeat's "tube" (arXiv 2112.09133).
    """

    ratio: float

    def num_draws(self, grid: Grid) -> int:
        *_, rows, columns = grid
        return self._blocks.num_draws(grid) + rows * columns

    def draw(self, noise: Tensor, grid: Grid, device: torch.device | str = "cpu") -> IndexMask:
        *frames, rows, columns = grid
        number = self._blocks.num_draws(grid)
        covered = self._blocks.draw(noise[:, :number], (rows, columns)).where
        order = (noise[:, number:] + covered).argsort(dim=1, stable=True).to(device)  # on one device, equal on all
        seen = rows * columns - math.floor(self.ratio * rows * columns)
        first = rows * columns * torch.arange(math.prod(frames), device=order.device)[:, None]
        keep, hide = ((part[:, None] + first).flatten(1) for part in (order[:, :seen], order[:, seen:]))
        return IndexMask(keep, hide)

    def typical(self, grid: Grid) -> tuple[int, int]:
        *frames, rows, columns = grid
        targets = math.prod(frames) * math.floor(self.ratio * rows * columns)
        return math.prod(grid) - targets, targets

    @property
    def _blocks(self) -> BlockMask:
        return BlockMask(self.ratio, self.ratio)


def squares(grid: Grid, side: int) -> Tensor:
    """-> (prod(grid) / side^A, side^A) int64: the tokens of each square, `side` tokens along each axis, of a grid."""
    cut = [length for size in grid for length in (size // side, side)]
    numbers = torch.arange(math.prod(grid)).view(cut)
    axes = range(len(cut))
    return numbers.permute(*axes[::2], *axes[1::2]).reshape(-1, side ** len(grid))


def rectangle(area: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
    """(B,), (B,) in [0, 1) -> (B,), (B,): height and width, in whole tokens, of rectangles of about that area."""
    shape = torch.exp((2 * aspect - 1) * math.log(1 / ASPECT))
    return (area * shape).clamp_min(0).sqrt().round(), (area / shape).clamp_min(0).sqrt().round()


def between(size: int, place: Tensor, length: Tensor) -> Tensor:
    """(B,) in [0, 1), (B,) -> (B, size) bool: the tokens of an axis that a segment of that length covers."""
    first = (place * (size - length + 1)).floor()[:, None]
    token = torch.arange(size)
    return (token >= first) & (token < first + length[:, None])
