"""Painters: from features of places to pixels, whatever the encoder. B: samples, D: channels of the encoder."""

import copy

import torch
from torch import nn

from selfsup.encoder import Encoder


def stride(encoder: Encoder, channels: int, sizes: tuple[int, ...]) -> int:
    """Return the pixels a side of a place in an encoder's feature maps of samples of these sizes."""
    if encoder.patch is not None:
        return encoder.patch
    images = torch.empty(1, channels, *sizes, device="meta")
    return sizes[0] // copy.deepcopy(encoder).to("meta").eval().spatial(images).shape[2]


class Painter(nn.Sequential):
    """(B, D, h, w) -> (B, C, f h, f w): hidden convolutions over places, then f by f pixels from each place.

    The last layer is the sub-pixel convolution of Shi et al. (arXiv 1609.05158). factor: f. depth: hidden layers of
    `width` channels, each batch-normalized.
    """

    def __init__(self, dim: int, channels: int, factor: int, *, width: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Conv2d(width if number else dim, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        last = nn.Conv2d(width if depth else dim, channels * factor**2, 1)
        super().__init__(*layers, last, nn.PixelShuffle(factor))
