"""Samples on a grid of any rank to tokens and back: images, spectrograms, clips.

B: batch, C: channels, S: points along each axis, p: points along each axis of a patch, N: patches.
"""

import math

import torch
from torch import Tensor

from selfsup.parts.tokens import Grid, Tokens, joined, places

Patch = int | tuple[int, ...]  # points along each axis; one number for all


def patchify(x: Tensor, patch: Patch) -> Tokens:
    """(B, C, *S) -> Tokens, value (B, N, prod(p) * C): patches, the last axis fastest, each flattened likewise.

    Channels are fastest of all: (row, column, channel) for images, the order of MAE (arXiv 2111.06377). coord is the
    patch's place in the grid.
    """
    batch, channels, *sizes = x.shape
    sides = sides_of(patch, len(sizes))
    divide = all(size % side == 0 for size, side in zip(sizes, sides, strict=True))
    assert divide, f"{'x'.join(map(str, sizes))} points do not divide into patches of {patch}"
    grid = tuple(size // side for size, side in zip(sizes, sides, strict=True))
    cut = [length for pair in zip(grid, sides, strict=True) for length in pair]
    axes = range(2, 2 + len(cut))
    value = x.reshape(batch, channels, *cut).permute(0, *axes[::2], *axes[1::2], 1)
    return Tokens(
        value=value.reshape(batch, math.prod(grid), math.prod(sides) * channels),
        coord=places(grid, x.device).expand(batch, -1, -1),
        grid=grid,
    )


def unpatchify(value: Tensor, *, grid: Grid, patch: Patch) -> Tensor:
    """(B, N, prod(p) * C) -> (B, C, *S): the inverse of `patchify`."""
    (batch, num_tokens, size), sides = value.shape, sides_of(patch, len(grid))
    channels = size // math.prod(sides)
    fits = (num_tokens, size) == (math.prod(grid), channels * math.prod(sides))
    assert fits, f"{tuple(value.shape)} is not a {grid} grid"
    patches = value.reshape(batch, *grid, *sides, channels)
    rank = len(grid)
    order = [axis for number in range(rank) for axis in (1 + number, 1 + rank + number)]
    lengths = [number * side for number, side in zip(grid, sides, strict=True)]
    return patches.permute(0, 1 + 2 * rank, *order).reshape(batch, channels, *lengths)


def turned(view: Tokens | Tensor, quarters: int, patch: int | None) -> Tokens | Tensor:
    """Turn a square view left by quarters of a circle. patch: pixels a side of a token; None for images."""
    if isinstance(view, Tensor):
        return torch.rot90(view, quarters, (2, 3))
    assert patch is not None, "tokens are turned with the pixels inside each, which takes their patch size"
    (batch, number, size), (side, width) = view.value.shape, view.grid
    assert side == width, f"{side} by {width} tokens are no square"
    pixels = view.value.view(batch, side, side, patch, patch, size // patch**2)
    pixels = torch.rot90(torch.rot90(pixels, quarters, (1, 2)), quarters, (3, 4))
    valid = view.valid
    if valid is not None:
        valid = torch.rot90(valid.view(batch, side, side), quarters, (1, 2)).reshape(batch, number)
    return Tokens(pixels.reshape(batch, number, size), view.coord, view.grid, valid)


def turns(view: Tokens | Tensor, patch: int | None) -> Tokens | Tensor:
    """(B, ...) -> (4 B, ...): a square view turned left by no, one, two and three quarters, one after the other."""
    values = [turned(view, quarters, patch) for quarters in range(4)]
    images = [value for value in values if isinstance(value, Tensor)]
    return torch.cat(images) if images else joined([value for value in values if isinstance(value, Tokens)])


def pixels(view: Tokens | Tensor, patch: Patch | None) -> Tensor:
    """(B, ...) -> (B, C, *S): samples of a view, whatever its encoder sees. patch: points a side of a token."""
    if isinstance(view, Tensor):
        return view
    assert patch is not None, "tokens are put together by their patch size"
    return unpatchify(view.value, grid=view.grid, patch=patch)


def seen_by(samples: Tensor, patch: Patch | None) -> Tokens | Tensor:
    """(B, C, *S) -> a view for an encoder of this patch size; whole samples without one."""
    return samples if patch is None else patchify(samples, patch)


def side_of(patch: Patch | None) -> int:
    """Return the points of a patch along any axis, where they are the same along all."""
    assert isinstance(patch, int), f"patches of {patch} points have no one side"
    return patch


def sides_of(patch: Patch, rank: int) -> tuple[int, ...]:
    """Return the points of a patch along each of so many axes."""
    return (patch,) * rank if isinstance(patch, int) else patch
