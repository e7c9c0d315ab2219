"""Attention pooling: a small transformer sums up embeddings of the pieces of an image.

B: batch, N: pieces, K: visible pieces, D: width.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class AttentionPooling(nn.Module):
    """A learned token, which reads the embeddings of visible pieces at their positions, a sum of row's and column's.

    Selfie (arXiv 1906.02940), section 3.2.
    """

    def __init__(self, side: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.start = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.rows = nn.Parameter(0.02 * torch.randn(side, width))
        self.columns = nn.Parameter(0.02 * torch.randn(side, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self) -> Tensor:
        """-> (N, D), row by row"""
        return (self.rows[:, None] + self.columns).flatten(0, 1)

    def forward(self, embedded: Tensor, keep: Tensor) -> Tensor:
        """(B, N, D), (B, K) int64 -> (B, D)"""
        seen = embedded.take_along_dim(keep[..., None], dim=1) + self.positions()[keep]
        read = self.blocks(torch.cat([self.start.expand(len(seen), -1, -1), seen], dim=1))
        pooled: Tensor = self.norm(read[:, 0])
        return pooled
