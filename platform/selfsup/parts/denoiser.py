"""A small U-Net that tells image from noise, given how noisy an image is, and a feature of what it shows.

As that of Ho et al. (arXiv 2006.11239), with the conditioning of Dhariwal and Nichol (arXiv 2105.05233): step and
feature scale and shift what is normalized in each residual block. It works on squares of 2 by 2 pixels, at three
resolutions with a block each on the way down and up, and without attention: images are small.

B: images, C: channels of an image, D: of a feature, S: pixels a side, E: of the embedding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8  # of channels that are normalized together
SQUARE = 2  # pixels a side of what the network sees as one
MULTIPLE = 4 * SQUARE  # that the pixels a side are of
PERIOD = 10_000.0  # of the slowest wave that embeds a step, over 2 π
EPSILON = 1e-6  # least deviation of a channel of features


class Denoiser(nn.Module):
    """Noisy images, steps and features to images. features: (N, D), by whose moments features are normalized."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor, channels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0, correction=0).clamp_min(EPSILON))
        inner, values = 4 * width, channels * SQUARE**2
        self.width = width
        self.step = _perceptron(width, inner)
        self.feature = _perceptron(features.shape[1], inner)
        self.first = nn.Conv2d(values, width, 3, padding=1)
        self.down = nn.ModuleList(
            [ModulatedBlock(width, width, inner), ModulatedBlock(width, 2 * width, inner)],
        )
        self.middle = ModulatedBlock(2 * width, 2 * width, inner)
        self.up = nn.ModuleList([ModulatedBlock(4 * width, width, inner), ModulatedBlock(2 * width, width, inner)])
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), _silent(width, values))

    def forward(self, images: Tensor, steps: Tensor, features: Tensor) -> Tensor:
        """(B, C, S, S), (B,), (B, D) -> (B, C, S, S)"""
        condition = self.step(waves(steps, self.width)) + self.feature((features - self.mean) / self.std)
        value, seen = self.first(F.pixel_unshuffle(images, SQUARE)), []
        for block in self.down:
            value = block(value, condition)
            seen.append(value)
            value = F.avg_pool2d(value, 2)
        value = self.middle(value, condition)
        for block in self.up:
            value = block(torch.cat([F.interpolate(value, scale_factor=2.0), seen.pop()], 1), condition)
        return F.pixel_shuffle(self.last(value), SQUARE)


class ModulatedBlock(nn.Module):
    """(B, I, H, W), (B, E) -> (B, O, H, W): a residual block whose second norm is scaled and shifted."""

    def __init__(self, before: int, after: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, after, affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(inner, 2 * after))
        self.second = nn.Sequential(nn.SiLU(), _silent(after, after))
        self.past = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, value: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        changed: Tensor = self.past(value) + self.second(self.norm(self.first(value)) * (1 + scale) + shift)
        return changed


def waves(steps: Tensor, width: int) -> Tensor:
    """(B,) -> (B, E): sines and cosines of a step, as a transformer's of a position (arXiv 1706.03762)"""
    paces = torch.exp(-math.log(PERIOD) * torch.arange(width // 2, device=steps.device) / (width // 2))
    angle = steps[:, None] * paces
    return torch.cat([angle.sin(), angle.cos()], 1)


def _perceptron(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.SiLU(), nn.Linear(after, after))


def _silent(before: int, after: int) -> nn.Conv2d:
    """Return a convolution that yields 0 before it is trained."""
    layer = nn.Conv2d(before, after, 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
