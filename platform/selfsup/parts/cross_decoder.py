"""A decoder of hidden patches that reads, block by block, an encoder's features of something else.

B: batch, N: patches, K: visible ones, R: patches that are read, D: channels of the encoder, d: of the decoder.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.masks import IndexMask
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos


class CrossDecoder(nn.Module):
    """MAE's decoder, but for prefix tokens, which it leaves out; its blocks read the patches of a second view, too.

    CroCo (arXiv 2210.10716), section 3.2, "Decoder", with cross-attention blocks.
    """

    positions: Tensor

    def __init__(self, encoder: TokenEncoder, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.num_prefix = encoder.num_prefix
        self.embed = nn.Linear(encoder.dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("positions", sincos(encoder.grid, width), persistent=False)
        self.blocks = nn.ModuleList(ReadingBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, encoder.patch_values)
        xavier_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, seen: Tensor, mask: IndexMask, other: Tensor) -> Tensor:
        """(B, num_prefix + K, D), IndexMask, (B, num_prefix + N, D) -> (B, N, d), in the order of the mask"""
        visible, read = (self.embed(view[:, self.num_prefix :]) for view in (seen, other))
        places = F.embedding(mask.order, self.positions)
        hidden = self.mask_token.to(visible.dtype).expand(len(seen), mask.hide.shape[1], -1)
        decoded, read = torch.cat([visible, hidden], dim=1) + places, read + self.positions
        for block in self.blocks:
            decoded = block(decoded, read)
        return decoded

    def paint(self, places: Tensor) -> Tensor:
        """(B, M, d) -> (B, M, P): the values of patches"""
        painted: Tensor = self.head(self.norm(places))
        return painted


class ReadingBlock(nn.Module):
    """A transformer block which, between its attention and its MLP, reads other tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        plain, self.heads = Block(dim, heads, qkv_bias=True), heads
        self.norm1, self.attn, self.norm2, self.mlp = plain.norm1, plain.attn, plain.norm2, plain.mlp
        self.norm_query, self.norm_read = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        """(B, N, d), (B, R, d) -> (B, N, d)"""
        x = x + self.attn(self.norm1(x))
        context = self.norm_read(read)
        parts = self.q(self.norm_query(x)), self.k(context), self.v(context)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        changed: Tensor = x + self.mlp(self.norm2(x))
        return changed
