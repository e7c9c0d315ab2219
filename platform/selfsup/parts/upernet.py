"""UPerNet on the tokens of a plain ViT: logits of classes from maps of four of its blocks.

Tete Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, arXiv 1807.10221, as BEiT, arXiv
2106.08254, has it and MAE took it over: maps of blocks at a third, a half, two thirds and the end of a ViT become a
pyramid; the last is pooled at four sizes; the others are added to it from the coarsest on. A second head on the third
map learns beside it. Initial weights are mmsegmentation's, from memory. B: images, D: channels, C: classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = 1, 2, 3, 6  # places a side of the last map
SECOND = 2  # the map that the second head reads


class UPerNet(nn.Module):
    """Pyramid of four maps, decoder and second head. width: channels of the decoder; the second head has half of them.

    Weights of the pyramid begin as PyTorch's.
    """

    def __init__(self, dim: int, classes: int, width: int) -> None:
        super().__init__()
        doubled, again = (nn.ConvTranspose2d(dim, dim, 2, stride=2) for _ in range(2))
        fine = nn.Sequential(doubled, nn.BatchNorm2d(dim), nn.GELU(), again)
        halved = nn.MaxPool2d(2, ceil_mode=True)
        self.pyramid = nn.ModuleList([fine, nn.ConvTranspose2d(dim, dim, 2, stride=2), nn.Identity(), halved])
        self.pools = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(side), _block(dim, width, 1)) for side in POOLS])
        self.top = _block(dim + len(POOLS) * width, width, 3)
        self.sides = nn.ModuleList([_block(dim, width, 1) for _ in range(3)])
        self.smoothed = nn.ModuleList([_block(width, width, 3) for _ in range(3)])
        self.fused = _block(4 * width, width, 3)
        self.head = _classifier(width, classes)
        self.second = nn.Sequential(_block(dim, width // 2, 3), _classifier(width // 2, classes))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Four of (B, D, h, w) -> (B, C, 4 h, 4 w), and of the second head (B, C, h, w)"""
        levels = [level(own) for level, own in zip(self.pyramid, maps, strict=True)]
        *sides, last = levels
        pooled = [_resized(pool(last), last) for pool in self.pools]
        paths = [self.top(torch.cat([last, *pooled], dim=1))]
        for side, own in zip(reversed(self.sides), reversed(sides), strict=True):
            lateral = side(own)
            paths.append(lateral + _resized(paths[-1], lateral))
        top, *rest = paths
        fine = [smooth(path) for smooth, path in zip(reversed(self.smoothed), rest, strict=True)][::-1]
        alike = [fine[0], *(_resized(path, fine[0]) for path in (*fine[1:], top))]
        logits: Tensor = self.head(self.fused(torch.cat(alike, dim=1)))
        return logits, self.second(levels[SECOND])


def _block(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """Return a convolution, batch normalization and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _classifier(inputs: int, classes: int) -> nn.Module:
    layer = nn.Conv2d(inputs, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _resized(value: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(value, like.shape[2:], mode="bilinear")
