"""Images to tokens and back: the only place where this modality has a shape.

B: batch, C: channels, H, W: pixels, p: pixels a side of a patch, N = H/p * W/p.
"""

import math

import torch
from torch import Tensor

from selfsup.parts.tokens import Tokens


def patchify(images: Tensor, patch: int) -> Tokens:
    """(B, C, H, W) -> Tokens, value (B, N, p*p*C): patches row by row, each flattened as (row, column, channel).

    The order is MAE's (arXiv 2111.06377). coord is (row, column) in the grid of patches; every token is valid.
    """
    batch, channels, height, width = images.shape
    assert (height % patch, width % patch) == (0, 0), f"{height}x{width} pixels do not divide into patches of {patch}"
    rows, columns = height // patch, width // patch
    value = images.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    row, column = (torch.arange(n, device=images.device) for n in (rows, columns))
    return Tokens(
        value=value.reshape(batch, rows * columns, patch * patch * channels),
        coord=torch.cartesian_prod(row, column).expand(batch, -1, -1),
        valid=torch.ones(batch, rows * columns, dtype=torch.bool, device=images.device),
    )


def unpatchify(value: Tensor, *, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, N, p*p*C) -> (B, C, H, W): the inverse of `patchify`. grid: rows and columns of patches."""
    batch, num_tokens, size = value.shape
    rows, columns = grid
    channels = size // patch**2
    assert (num_tokens, size) == (rows * columns, channels * patch**2), f"{tuple(value.shape)} is not a {grid} grid"
    patches = value.reshape(batch, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return patches.reshape(batch, channels, rows * patch, columns * patch)


def turned(view: Tokens | Tensor, quarters: int, patch: int | None) -> Tokens | Tensor:
    """The same view, square, turned left by quarters of a circle. patch: pixels a side of a token; None for images."""
    if isinstance(view, Tensor):
        return torch.rot90(view, quarters, (2, 3))
    assert patch is not None, "to turn tokens is to turn the pixels inside each, too"
    (batch, number, size), side = view.value.shape, math.isqrt(view.value.shape[1])
    assert side**2 == number, f"{number} tokens are no square"
    pixels = view.value.view(batch, side, side, patch, patch, size // patch**2)
    pixels = torch.rot90(torch.rot90(pixels, quarters, (1, 2)), quarters, (3, 4))
    valid = torch.rot90(view.valid.view(batch, side, side), quarters, (1, 2))
    return Tokens(pixels.reshape(batch, number, size), view.coord, valid.reshape(batch, number))
