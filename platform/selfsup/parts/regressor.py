"""Regressors of hidden tokens' features, which read those of visible ones by cross-attention.

B: batch, K: visible tokens, M: hidden ones, T: all, D: channels of the encoder.
"""

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.masks import IndexMask
from selfsup.parts import initial
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos


class Regressor(nn.Module):
    """One learned query at every hidden place, which becomes the features there; visible ones stay as they are.

    CAE (arXiv 2202.03026), section 3.1, "Latent contextual regressor". scale: at first, of what each block adds.
    """

    positions: Tensor

    def __init__(self, encoder: TokenEncoder, *, depth: int, scale: float) -> None:
        super().__init__()
        heads = encoder.trunk.blocks[0].attn.num_heads
        self.query = nn.Parameter(torch.empty(1, 1, encoder.dim))
        self.register_buffer("positions", sincos(encoder.grid, encoder.dim), persistent=False)
        self.blocks = nn.ModuleList(CrossBlock(encoder.dim, heads, scale=scale) for _ in range(depth))
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-6)
        xavier_linears(self)
        initial.cut_normal(self.query)

    def forward(self, seen: Tensor, mask: IndexMask) -> Tensor:
        """(B, K, D), IndexMask -> (B, M, D)"""
        hidden_place = F.embedding(mask.hide, self.positions)
        place = torch.cat([F.embedding(mask.keep, self.positions), hidden_place], dim=1)
        hidden = self.query.expand_as(hidden_place)
        for block in self.blocks:
            hidden = block(hidden, torch.cat([seen, hidden], dim=1), hidden_place, place)
        normalized: Tensor = self.norm(hidden)
        return normalized


class CrossBlock(nn.Module):
    """Cross-attention and an MLP; what the MLP reads and adds to is normalized, as in CAE's code."""

    def __init__(self, dim: int, heads: int, *, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_key, self.norm_value, self.norm = (nn.LayerNorm(dim, eps=1e-6) for _ in range(4))
        self.query, self.value, self.out = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)  # it would add the same to all scores of a query
        self.mlp = Mlp(dim, 4 * dim)
        self.scale_attention, self.scale_mlp = (nn.Parameter(torch.full((dim,), scale)) for _ in range(2))

    def forward(self, hidden: Tensor, read: Tensor, hidden_place: Tensor, place: Tensor) -> Tensor:
        """(B, M, D), (B, T, D), (B, M, D), (B, T, D): positions -> (B, M, D)"""
        query = self.query(self.norm_query(hidden + hidden_place))
        key, value = self.key(self.norm_key(read + place)), self.value(self.norm_value(read))
        heads = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        hidden = self.norm(hidden + self.scale_attention * self.out(mixed))
        out: Tensor = hidden + self.scale_mlp * self.mlp(hidden)
        return out
