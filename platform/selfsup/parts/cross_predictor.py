"""A predictor of hidden places, each of which reads an encoder's visible tokens, and no other hidden place.

B: batch, K: visible tokens, M: places that are asked for, T: K and prefix tokens, D: channels, d: channels of a head.
"""

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3, apply_rot_embed_cat
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.parts.heads import xavier_linears


class CrossPredictor(nn.Module):
    """One learned token at every place that is asked for, turned by that, in blocks of cross-attention.

    CAPI (arXiv 2502.08769), section 3.3, of the encoder's width and heads. Turns are DINOv3's (arXiv 2508.10104).
    """

    turns: Tensor  # (N + 1, 2d): sines and cosines of each place; the last row, of prefix tokens, turns nothing

    def __init__(self, encoder: TokenEncoder, *, depth: int) -> None:
        super().__init__()
        heads, self.num_prefix = encoder.trunk.blocks[0].attn.num_heads, encoder.num_prefix
        size = encoder.dim // heads
        rows, columns = encoder.grid
        table = RotaryEmbeddingDinoV3(size, temperature=100.0, rotate_half=True).get_embed([rows, columns])
        still = torch.cat([torch.zeros(1, size), torch.ones(1, size)], dim=1)
        self.register_buffer("turns", torch.cat([table.to(still), still]), persistent=False)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, encoder.dim))
        self.blocks = nn.ModuleList(TurnedBlock(encoder.dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-5, elementwise_affine=False)
        xavier_linears(self)

    def forward(self, seen: Tensor, keep: Tensor, asked: Tensor) -> Tensor:
        """(B, T, D), (B, K), (B, M) -> (B, M, D)"""
        last = len(self.turns) - 1
        own, other = (self.turns[number][:, None] for number in (asked, F.pad(keep, (self.num_prefix, 0), value=last)))
        hidden = self.mask_token.expand(*asked.shape, -1)
        for block in self.blocks:
            hidden = block(hidden, seen, own, other)
        normalized: Tensor = self.norm(hidden)
        return normalized


class TurnedBlock(nn.Module):
    """Cross-attention with rotary positions, then an MLP, both without biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-5), nn.LayerNorm(dim, eps=1e-5)
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.mlp = Mlp(dim, 4 * dim, bias=False)

    def forward(self, hidden: Tensor, read: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """(B, M, D), (B, T, D), (B, 1, M, 2d), (B, 1, T, 2d) -> (B, M, D)"""
        parts = self.q(self.norm1(hidden)), self.k(read), self.v(read)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        q, k = (apply_rot_embed_cat(part, turn, half=True).to(v.dtype) for part, turn in ((q, own), (k, other)))
        hidden = hidden + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        changed: Tensor = hidden + self.mlp(self.norm2(hidden))
        return changed
