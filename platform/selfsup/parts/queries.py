"""A decoder of queries, which reads what an encoder makes of other tokens, block by block.

B: batch, N: patches, T: tokens of the encoder, D: channels.
"""

from collections.abc import Iterable

import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos


class QueryDecoder(nn.Module):
    """A query at each patch's position, which reads the encoder's states block by block, and no other query.

    SemAIM (arXiv 2312.10457), its parallel decoder, of the encoder's width and heads. depth: blocks, evenly beside the
    encoder's.
    """

    positions: Tensor

    def __init__(self, encoder: TokenEncoder, *, depth: int) -> None:
        super().__init__()
        blocks = encoder.trunk.blocks
        self.step = len(blocks) // depth
        self.register_buffer("positions", sincos(encoder.grid, encoder.dim), persistent=False)
        self.blocks = nn.ModuleList(QueryBlock(encoder.dim, blocks[0].attn.num_heads) for _ in range(depth))
        xavier_linears(self)

    def forward(self, states: Iterable[Tensor], attended: Tensor) -> Tensor:
        """(B, T, D) after each block of the encoder, (B, 1, N, T) bool -> (B, N, D)"""
        query = self.positions[None]
        for number, state in enumerate(states, start=1):
            if number % self.step == 0:
                query = self.blocks[number // self.step - 1](query, state, attended)
        return query


class QueryBlock(nn.Module):
    """A transformer block whose attention is from queries to the states of another one."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, query: Tensor, state: Tensor, attended: Tensor) -> Tensor:
        """(B or 1, N, D), (B, T, D), (B, 1, N, T) bool -> (B, N, D)"""
        asking, context = self.norm1(query), self.norm1(state)
        parts = self.q(asking).expand(len(state), -1, -1), self.k(context), self.v(context)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attended).transpose(1, 2).flatten(2)
        query = query + self.proj(mixed)
        changed: Tensor = query + self.mlp(self.norm2(query))
        return changed
