"""The decoder of one modality of MultiMAE (Bachmann et al., ECCV 2022, arXiv:2204.01678).

B: batch, T: modalities, N: patches of one, K: visible ones of all, D: channels, d: of a decoder.
"""

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.masks import IndexMask
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos


class TaskDecoder(nn.Module):
    """A decoder of one modality: its patches ask, by cross-attention, for what the encoder made of all visible ones.

    Section 3.2, "Decoders": queries are visible patches' features, and a learned token elsewhere; then transformer
    blocks. Every modality has an embedding of its own in each decoder.

    values: of a patch of the modality, which is number `at` of so many `tasks`.
    """

    positions: Tensor

    def __init__(
        self, encoder: TokenEncoder, values: int, *, tasks: int, at: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.heads, self.num_prefix, self.at = heads, encoder.num_prefix, at
        self.embed = nn.Linear(encoder.dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.task_embed = nn.Parameter(torch.empty(tasks, 1, width))
        self.register_buffer("positions", sincos(encoder.grid, width), persistent=False)
        self.query_norm, self.context_norm, self.out_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.mlp = Mlp(width, 4 * width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.head = nn.Linear(width, values)
        xavier_linears(self)
        nn.init.trunc_normal_(self.task_embed, std=0.02)

    def forward(self, seen: Tensor, mask: IndexMask) -> Tensor:
        """(B, prefix + K, D) -> (B, N, values): every patch of the modality, as it is painted"""
        context = self.embed(seen)
        places = (self.task_embed + self.positions).flatten(0, 1)  # (T * N, d)
        visible = context[:, self.num_prefix :] + F.embedding(mask.keep, places)
        asked = (self.mask_token + places).expand(len(seen), -1, -1).to(visible.dtype)
        asked = asked.scatter(1, mask.keep[..., None].expand_as(visible), visible)
        queries = asked.view(len(seen), -1, *self.positions.shape)[:, self.at]
        read = self.context_norm(torch.cat([context[:, : self.num_prefix], visible], dim=1))
        hidden = self._attended(self.query_norm(queries), read)
        painted: Tensor = self.head(self.blocks(hidden + self.mlp(self.out_norm(hidden))))
        return painted

    def _attended(self, queries: Tensor, read: Tensor) -> Tensor:
        parts = self.q(queries), self.k(read), self.v(read)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended
