"""Painters: from features of places, or of an image, to pixels; and a judge of them.

B: samples, D: channels of the features, C: of the image, S: pixels a side.
"""

import copy

import torch
from torch import nn

from selfsup.encoder import Encoder
from selfsup.parts.patch import side_of


def stride(encoder: Encoder, channels: int, sizes: tuple[int, ...]) -> int:
    """Return the pixels a side of a place in an encoder's feature maps of samples of these sizes."""
    if encoder.patch is not None:
        return side_of(encoder.patch)
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


def upward(dim: int, channels: int, side: int, width: int) -> nn.Sequential:
    """(B, D) -> (B, C, S, S): transposed convolutions, each but the first of which doubles rows and columns.

    As the code of Pathak et al. (arXiv 1604.07379), whose first maps have `start` pixels a side; the last hidden ones
    have `width` channels, those before them twice as many each time. Batch norm and ReLU follow each but the last.
    """
    first, doublings = start(side)
    layers: list[nn.Module] = [nn.Unflatten(1, (dim, 1, 1))]
    before = dim
    for number in range(doublings):
        after, window = width * 2 ** (doublings - 1 - number), (4, 2, 1) if number else (first, 1, 0)
        layers += [nn.ConvTranspose2d(before, after, *window), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return _drawn(nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 4, 2, 1)))


def downward(channels: int, side: int, width: int) -> nn.Sequential:
    """(B, C, S, S) -> (B,): the mirror image of `upward`, which tells true images from painted ones."""
    first, doublings = start(side)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for number in range(doublings - 1):
        before = width * 2**number
        layers += [nn.Conv2d(before, 2 * before, 4, 2, 1), nn.BatchNorm2d(2 * before), nn.LeakyReLU(0.2)]
    last = nn.Conv2d(width * 2 ** (doublings - 1), 1, first)
    return _drawn(nn.Sequential(*layers, last, nn.Flatten(0)))


def start(side: int) -> tuple[int, int]:
    """Return pixels a side of the smallest maps, from 4 to 7, and how often these are doubled to make S of them."""
    doublings = max(1, (side // 4).bit_length() - 1)
    return side >> doublings, doublings


def paintable(side: int) -> bool:
    """Return whether S is 4 to 7 pixels, doubled once or more."""
    first, doublings = start(side)
    return first >= 4 and first << doublings == side


def _drawn(network: nn.Sequential) -> nn.Sequential:
    """Draw weights anew as DCGAN's: deviations of 0.02, around 0, and around 1 for the scales of norms."""
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return network
