"""Histograms of oriented gradients, the target of MaskFeat (arXiv 2112.09133).

B: batch, C: channels, H, W: pixels, c: pixels a side of a cell, h, w: cells along each axis, N: tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts.patch import Patch, patchify, sides_of, unpatchify
from selfsup.parts.precision import no_autocast
from selfsup.parts.tokens import Tokens

BINS = 9  # of orientations in half a circle
SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def hog(images: Tensor, cell: int) -> Tensor:
    """(B, C, H, W) -> (B, C * 9, h, w), in fp32: of each channel and cell the histogram, of length 1, or 0 without any.

    Section 3.2 and the authors' code: Sobel gradients of the image reflected at its border; each pixel adds the length
    of its gradient to the bin of its orientation, the arc tangent of the row's part over the column's in half a circle,
    without interpolation; a histogram is normalized by itself.
    """
    channels = images.shape[1]
    sobel = images.new_tensor(SOBEL).float()
    kernels = (kernel.expand(channels, 1, 3, 3) for kernel in (sobel.T, sobel))
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    with no_autocast(images):
        along_rows, along_columns = (F.conv2d(padded, kernel, groups=channels) for kernel in kernels)
    phase = torch.atan2(along_columns, along_rows) / math.pi * BINS
    bins, length = phase.floor() % BINS, torch.hypot(along_rows, along_columns)
    cells = [F.avg_pool2d(length * (bins == number), cell) for number in range(BINS)]
    histograms: Tensor = F.normalize(torch.stack(cells, dim=2), dim=2).flatten(1, 2)
    return histograms


@torch.no_grad()
def hog_of_tokens(tokens: Tokens, *, patch: Patch, cell: int) -> Tensor:
    """-> (B, N, (p / c)^2 * C * 9): of the image that the tokens, in the grid's order, are the patches of p pixels of.

    Of a clip, of one frame of each token: the middle one, of two the first, as the authors' code takes them.
    """
    *frames, side, _ = sides_of(patch, len(tokens.grid))
    images = unpatchify(tokens.value, grid=tokens.grid, patch=patch)
    if frames:
        middle = images[:, :, (frames[0] - 1) // 2 :: frames[0]]  # (B, C, tokens along time, H, W)
        images = middle.transpose(1, 2).flatten(0, 1)
    cells = patchify(hog(images, cell), side // cell).value
    return cells.reshape(*tokens.value.shape[:2], cells.shape[2])


def drawn(histograms: Tensor, *, patch: int, cell: int) -> Tensor:
    """(B, N, (patch / c)^2 * C * 9) -> (B, N, patch^2 * C): patches with a stroke along each edge, for pictures."""
    batch, tokens = histograms.shape[:2]
    side = patch // cell
    cells = histograms.float().reshape(batch * tokens, side**2, -1, BINS)
    pixels = cells @ strokes(cell).to(histograms.device).flatten(1)  # (B * N, cells, C, c^2)
    channels = pixels.shape[2]
    image = unpatchify(pixels.mT.flatten(2), grid=(side, side), patch=cell)
    return image.permute(0, 2, 3, 1).reshape(batch, tokens, patch**2 * channels)


def strokes(cell: int) -> Tensor:
    """-> (9, c, c): a line through the middle of a cell across the gradients of each bin."""
    along = torch.arange(cell) - (cell - 1) / 2
    angle = (torch.arange(BINS) + 0.5)[:, None, None] * math.pi / BINS
    distance = along[:, None] * angle.cos() + along * angle.sin()
    return (1 - distance.abs()).clamp_min(0)
