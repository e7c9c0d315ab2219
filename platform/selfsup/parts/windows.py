"""Transformer blocks whose tokens attend to near ones alone: within windows of a grid, as Swin v2's.

Liu et al., "Swin transformer v2", CVPR 2022, arXiv:2111.09883, by the code that Audio-MAE (arXiv 2207.06405) decodes
with, which is timm's `swin_transformer_v2_cr`. B: batch, N: tokens, A: axes, W: windows, L: tokens of a window.
"""

import math

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.tokens import Grid, places

BIAS_WIDTH = 384  # channels of the network that makes a bias of a distance
COLDEST = 0.01


class WindowBlock(nn.Module):
    """Attention by cosines within windows of a grid, plus a bias by distance, then an MLP, each normalized afterwards.

    shift: tokens by which windows are moved along the first axis. Those at its ends are then cut in two, which do not
    attend to each other. Deviation: Audio-MAE drops a tenth of what makes the bias, here nothing is random.
    """

    distances: Tensor
    is_near: Tensor | None

    def __init__(self, grid: Grid, *, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        self.sides = tuple(min(window, size) for size in grid)
        self.shift = shift if grid[0] > self.sides[0] else 0
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.ones(heads))
        self.bias = Mlp(len(grid), BIAS_WIDTH, heads, act_layer=nn.ReLU)
        self.mlp = Mlp(width, 4 * width)
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        inside = places(self.sides)
        apart = (inside[:, None] - inside).float()  # (L, L, A)
        self.register_buffer("distances", apart.sign() * apart.abs().log1p(), persistent=False)
        self.register_buffer("is_near", self._near() if self.shift else None, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) in the order of the grid -> (B, N, D)"""
        tokens = tokens + self.norm1(self._joined(self._attended(self._cut(tokens))))
        out: Tensor = tokens + self.norm2(self.mlp(tokens))
        return out

    def _attended(self, tokens: Tensor) -> Tensor:
        """(B, W, L, D) -> (B, W, L, D)"""
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = parts.unbind(0)  # (B, W, heads, L, D / heads)
        cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
        score = cosine / self.temperature.clamp(min=COLDEST)[:, None, None] + self.bias(self.distances).permute(2, 0, 1)
        if self.is_near is not None:
            score = score.masked_fill(~self.is_near[:, None], -math.inf)
        attended: Tensor = self.out((score.softmax(dim=-1) @ value).transpose(2, 3).flatten(3))
        return attended

    def _cut(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, W, L, D)"""
        batch, _, width = tokens.shape
        samples = tokens.mT.reshape(batch, width, *self.grid).roll(-self.shift, 2)
        value = patchify(samples, self.sides).value
        return value.reshape(batch, value.shape[1], -1, width)

    def _joined(self, windows: Tensor) -> Tensor:
        """(B, W, L, D) -> (B, N, D)"""
        number = tuple(size // side for size, side in zip(self.grid, self.sides, strict=True))
        return unpatchify(windows.flatten(2), grid=number, patch=self.sides).roll(self.shift, 2).flatten(2).mT

    def _near(self) -> Tensor:
        """-> (W, L, L) bool: the tokens of a window that are within its length of each other, along the first axis."""
        row = self._cut(places(self.grid)[None, :, :1])[0, ..., 0]
        return (row[:, :, None] - row[:, None]).abs() < self.sides[0]


def window_blocks(grid: Grid, *, width: int, depth: int, heads: int, window: int) -> nn.Sequential:
    """(B, N, D) in the order of the grid -> (B, N, D): blocks, every other with windows moved by half a window."""
    shifts = (window // 2 * (number % 2) for number in range(depth))
    return nn.Sequential(*(WindowBlock(grid, width=width, heads=heads, window=window, shift=shift) for shift in shifts))
