"""Decoders, which predict hidden tokens from what an encoder made of the others, and are thrown away afterwards.

B: batch, N: tokens, K: visible tokens, D: channels of the encoder, P: values of a target.
"""

from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import SparseEncoder
from selfsup.knob import Choice
from selfsup.masks import IndexMask
from selfsup.parts.heads import xavier_linears
from selfsup.parts.place_codes import places_of
from selfsup.parts.tokens import Tokens
from selfsup.parts.windows import window_blocks

Knob = dict[str, Any]  # all of a knob but its default, which each method has from its paper
WIDTH: Knob = {"doc": "channels of the decoder", "sweep": Choice(128, 256, 512), "gt": 0, "multiple_of": 4}
DEPTH: Knob = {"doc": "transformer blocks of the decoder", "sweep": Choice(1, 2, 4, 8), "ge": 1, "le": 1000}
WINDOW: Knob = {
    "doc": "tokens a side of the windows that the decoder attends within, every other moved in time; null: all tokens",
    "gt": 1,
}
HEADS: Knob = {"doc": "attention heads of the decoder", "gt": 0}


class Decoder(nn.Module):
    """A narrow ViT over all places: the encoder's features at the visible ones, one learned token at every other.

    MAE (arXiv 2111.06377), section 3, "MAE decoder". dim: D; None: the encoder's. values: P, those of a pixel patch if
    None. fills: whether places are hidden from the encoder, which has no features for them. window: tokens a side of
    the windows that blocks attend within, without class tokens, as Audio-MAE's (arXiv 2207.06405); None: they attend to
    all.
    """

    def __init__(
        self,
        encoder: SparseEncoder,
        *,
        width: int,
        depth: int,
        heads: int,
        dim: int | None = None,
        values: int | None = None,
        window: int | None = None,
        fills: bool = True,
    ) -> None:
        super().__init__()
        self.num_prefix = encoder.num_prefix
        self.embed = nn.Linear(dim or encoder.dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width)) if fills else None
        self.places = places_of(encoder, width)
        self.is_local = window is not None
        self.blocks = (
            nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
            if window is None
            else window_blocks(encoder.grid, width=width, depth=depth, heads=heads, window=window)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values or encoder.patch_values)
        xavier_linears(self)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, seen: Tensor, mask: IndexMask, tokens: Tokens | None = None) -> Tensor:
        """(B, num_prefix + K, D), IndexMask -> (B, N, width), in the order of the mask: attention sees none.

        Without hidden places, K is N. tokens: all of them, where they have no places on a grid.
        """
        seen = self.embed(seen)
        parts = [seen[:, : self.num_prefix], seen[:, self.num_prefix :] + self.places(mask.keep, tokens)]
        if self.mask_token is not None:
            parts.append(self.mask_token + self.places(mask.hide, tokens))
        if not self.is_local:
            places: Tensor = self.blocks(torch.cat(parts, dim=1))
            return places[:, self.num_prefix :]
        on_grid = torch.cat(parts, dim=1)[:, self.num_prefix :].take_along_dim(mask.restore[..., None], dim=1)
        near: Tensor = self.blocks(on_grid)
        return near.take_along_dim(mask.order[..., None], dim=1)

    def paint(self, places: Tensor) -> Tensor:
        """(B, M, width) -> (B, M, P), in the units of the target"""
        painted: Tensor = self.head(self.norm(places))
        return painted
