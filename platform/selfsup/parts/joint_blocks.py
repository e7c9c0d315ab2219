"""Blocks in which the tokens of several encoders read each other.

B: batch, T: tokens of an encoder, D: its channels, d: those of the first encoder.
"""

from collections.abc import Mapping

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.parts.heads import xavier_linears


class JointBlocks(nn.Module):
    """Transformer blocks over the tokens of all encoders together, as wide as the first, and a norm.

    Audiovisual MAE (arXiv 2212.05922), section 3.2, "mid-fusion"; MAViL (arXiv 2212.08071), section 3.1, whose fusion
    encoder has two. Tokens of another width are mapped linearly; nothing but their encoder says of which kind they are.
    Without blocks, tokens stay as they are.
    """

    def __init__(self, encoders: Mapping[str, TokenEncoder], *, depth: int) -> None:
        super().__init__()
        first = next(iter(encoders.values()))
        self.dim, heads = first.dim, first.trunk.blocks[0].attn.num_heads
        inlets = {name: self._inlet(encoder.dim) for name, encoder in encoders.items()}
        self.inlets = nn.ModuleDict(inlets)
        self.blocks = nn.Sequential(*(Block(self.dim, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.dim, eps=1e-6) if depth else nn.Identity()
        xavier_linears(self)

    def forward(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, T, D) of each modality -> (B, T, d) of each"""
        parts = [self.inlets[name](tokens) for name, tokens in seen.items()]
        joined = self.norm(self.blocks(torch.cat(parts, dim=1)))
        return dict(zip(seen, joined.split([part.shape[1] for part in parts], dim=1), strict=True))

    def _inlet(self, dim: int) -> nn.Module:
        return nn.Identity() if dim == self.dim else nn.Linear(dim, self.dim)
