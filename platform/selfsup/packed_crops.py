"""Crops of several sizes through a plain ViT in one sequence, in which each crop attends to itself alone.

Oquab et al., "DINOv2: Learning robust visual features without supervision", TMLR 2024, arXiv:2304.07193, section 5.
Layers that see one token at a time see those of all crops at once; attention, whose mask is block-diagonal, takes the
crops of one size at a time, so that no pair of tokens of two crops is computed. Stochastic depth leaves out crops.

B: crops of a size, T: tokens of one, D: channels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

Sizes = tuple[tuple[int, int], ...]  # of each size: B, T


def can_pack(trunk: Any) -> bool:
    """Return whether a trunk is a plain ViT, with blocks and attention of timm's usual kind."""
    return isinstance(trunk, VisionTransformer) and all(
        type(block) is Block and type(block.attn) is Attention and block.attn.gate is None for block in trunk.blocks
    )


def pack(trunk: Any) -> None:
    """Let a trunk's blocks, in place, take crops of several sizes, too; weights, and their names, stay."""
    for block in trunk.blocks:
        block.__class__ = PackedBlock


def through(trunk: Any, crops: Sequence[Tensor]) -> list[Tensor]:
    """(B, T, D) of each size -> (B, T, D) of each: through all blocks of a packed trunk, before its norm."""
    sizes = tuple((len(part), part.shape[1]) for part in crops)
    x = trunk.norm_pre(torch.cat([part.flatten(0, 1) for part in crops]))
    for block in trunk.blocks:
        x = block(x, sizes=sizes)
    return _apart(x, sizes)


class PackedBlock(Block):
    """A block of a plain ViT, which takes a sequence of crops where their sizes are named."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, *, sizes: Sizes | None = None
    ) -> Tensor:
        """(sum of B * T, D) -> (sum of B * T, D); as timm's without sizes"""
        if sizes is None:
            whole: Tensor = super().forward(x, attn_mask, is_causal)
            return whole
        x = x + _by_size(self.drop_path1, self.ls1(_attended(self.attn, self.norm1(x), sizes)), sizes)
        return x + _by_size(self.drop_path2, self.ls2(self.mlp(self.norm2(x))), sizes)


def _attended(attention: Any, x: Tensor, sizes: Sizes) -> Tensor:
    def mixed(part: Tensor) -> Tensor:
        heads = part.reshape(*part.shape[:2], 3, attention.num_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        drop = attention.attn_drop.p if attention.training else 0.0
        seen = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v, dropout_p=drop)
        return seen.transpose(1, 2).flatten(2)

    out: Tensor = attention.proj_drop(attention.proj(attention.norm(_by_size(mixed, attention.qkv(x), sizes))))
    return out


def _by_size(layer: Callable[[Tensor], Tensor], x: Tensor, sizes: Sizes) -> Tensor:
    """Return what a layer that sees whole crops, (B, T, channels), makes of the crops of each size, in one sequence."""
    return torch.cat([layer(part).flatten(0, 1) for part in _apart(x, sizes)])


def _apart(x: Tensor, sizes: Sizes) -> list[Tensor]:
    parts = torch.split(x, [number * tokens for number, tokens in sizes])
    return [part.reshape(*size, -1) for part, size in zip(parts, sizes, strict=True)]
