"""Tokens, the one form in which a token encoder sees any modality."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Grid = tuple[int, ...]  # tokens along each axis


class Tokens(NamedTuple):
    """Tokens of B samples, each at a place of a grid of A axes.

    value: (B, N, P) flattened patches. coord: (B, N, A) int64, their places, in any order. grid: the tokens along each
    axis. valid: (B, N) bool, False for padding; None where all are valid.
    """

    value: Tensor
    coord: Tensor
    grid: Grid
    valid: Tensor | None = None

    @property
    def place(self) -> Tensor:
        """(B, N) int64: each token's number in the grid, the last axis fastest; (N,) if all samples share them."""
        coord = self.coord[0] if self.coord.stride(0) == 0 else self.coord  # expanded: known without reading it
        number, *rest = coord.unbind(-1)
        for size, along in zip(self.grid[1:], rest, strict=True):
            number = number * size + along
        return number


def places(grid: Grid, device: torch.device | None = None) -> Tensor:
    """-> (N, A) int64: all places of a grid, the last axis fastest."""
    axes = [torch.arange(size, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(math.prod(grid), len(grid))


def joined(parts: Sequence[Tokens]) -> Tokens:
    """V views of B samples, of one grid -> the tokens of V * B samples."""
    value, coord = torch.cat([part.value for part in parts]), torch.cat([part.coord for part in parts])
    if all(part.valid is None for part in parts):
        return Tokens(value, coord, parts[0].grid)
    valid = [
        torch.ones_like(part.coord[..., 0], dtype=torch.bool) if part.valid is None else part.valid for part in parts
    ]
    return Tokens(value, coord, parts[0].grid, torch.cat(valid))


def samples(view: Tokens | Tensor, rows: slice) -> Tokens | Tensor:
    """Return these rows, samples, of a view."""
    if isinstance(view, Tensor):
        return view[rows]
    valid = None if view.valid is None else view.valid[rows]
    return Tokens(view.value[rows], view.coord[rows], view.grid, valid)


def kept(tokens: Tokens, keep: Tensor) -> Tokens:
    """(B, N, P), (B, K) -> (B, K, P): the tokens with these numbers, at their places"""
    number = keep[..., None]
    valid = None if tokens.valid is None else tokens.valid.take_along_dim(keep, 1)
    return Tokens(tokens.value.take_along_dim(number, 1), tokens.coord.take_along_dim(number, 1), tokens.grid, valid)


def grouped(view: Tokens | Tensor, number: int, embed: Callable[[Tokens | Tensor], Tensor]) -> Tensor:
    """(B, ...) -> (B, D): embeddings of `number` groups of samples, one group at a time.

    Batch statistics then do not tell which key is a query's. MoCo (arXiv 1911.05722), section 3.3, shuffles among GPUs
    for that; groups do it on any number of processes.
    """
    groups = [samples(view, slice(start, None, number)) for start in range(number)]
    return torch.stack([embed(group) for group in groups], dim=1).flatten(0, 1)


def at(tokens: Tensor, numbers: Tensor) -> Tensor:
    """(B, N, D), (M,) int64 -> (M, D): the tokens with these numbers, counted through the batch."""
    return tokens.flatten(0, 1).index_select(0, numbers)
