"""V-JEPA's attentive classifier: a learned query reads the tokens of a sample, after blocks of self-attention or none.

Bardes et al., arXiv 2404.08471 (one block); Assran et al., arXiv 2506.09985 (four). B: batch, T: tokens, D: channels.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn

STD = 0.02  # of weights at first
Norm = partial(nn.LayerNorm, eps=1e-6)


class AttentiveClassifier(nn.Module):
    """Blocks of self-attention, one of cross-attention from a query, and a linear layer.

    depth: of all blocks. Attention of the query has no projection behind it.
    """

    def __init__(self, dim: int, heads: int, depth: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        norm: Any = Norm
        self.blocks = nn.Sequential(*(Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth - 1)))
        self.query = nn.Parameter(nn.Linear(dim, 1).weight[None].detach())
        self.norm, self.to_query, self.to_keys, self.to_values = Norm(dim), *(nn.Linear(dim, dim) for _ in range(3))
        self.mlp = nn.Sequential(Norm(dim), Mlp(dim, 4 * dim))
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, classes)"""
        context = self.norm(self.blocks(tokens))
        query = self.query.expand(len(tokens), -1, -1)
        parts = self.to_query(query), self.to_keys(context), self.to_values(context)
        split = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        hidden = query + F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        logits: Tensor = self.head((hidden + self.mlp(hidden))[:, 0])
        return logits

    def begin(self, draw: Generator) -> None:
        """Draw small weights and no biases; the later a block of self-attention, the less it adds."""
        for weight in (self.query, *(layer.weight for layer in self.modules() if isinstance(layer, nn.Linear))):
            nn.init.trunc_normal_(weight, std=STD, generator=draw)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
        blocks: Any = self.blocks
        for number, block in enumerate(blocks, 1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data /= (2 * number) ** 0.5


def heads_of(dim: int, width: int) -> int:
    """Return the number of heads of attention of `width` channels, or of the next more that divide `dim`."""
    return next(heads for heads in range(max(1, dim // width), 0, -1) if dim % heads == 0)
