"""Predictors of features at places that an encoder did not see.

B: batch, K: visible tokens, S: sets of targets, M: tokens of a set, D: channels of the encoder,
V: of what is predicted, which are the same unless they are given.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.parts import initial
from selfsup.parts.positions import sincos


class Predictor(nn.Module):
    """A narrow ViT over the encoder's features at visible places, and one learned token at every place of a target.

    I-JEPA (arXiv 2301.08243), section 3, "Prediction": each set of targets by itself.
    """

    positions: Tensor

    def __init__(self, encoder: TokenEncoder, *, width: int, depth: int, heads: int, values: int | None = None) -> None:
        super().__init__()
        self.num_prefix = encoder.num_prefix
        self.embed = nn.Linear(encoder.dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("positions", sincos(encoder.grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values or encoder.dim)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=initial.STD)
                nn.init.zeros_(layer.bias)
        initial.shrink(self.blocks)
        nn.init.trunc_normal_(self.mask_token, std=initial.STD)

    def forward(
        self, seen: Tensor, keep: Tensor, targets: Tensor, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, num_prefix + K, D), (B, K), (B, S, M) -> (B, S, K, V), (B, S, M, V): at visible places, at targets.

        shift: (B, S, M, width), added to the positions of targets.
        """
        sets = targets.shape[1]
        context = self.embed(seen)
        visible = context[:, self.num_prefix :] + F.embedding(keep, self.positions)
        context = torch.cat([context[:, : self.num_prefix], visible], dim=1)
        asked = self.mask_token + F.embedding(targets.flatten(0, 1), self.positions)
        if shift is not None:
            asked = asked + shift.flatten(0, 1)
        hidden = self.blocks(torch.cat([context.repeat_interleave(sets, dim=0), asked], dim=1))
        features = self.head(self.norm(hidden[:, self.num_prefix :])).unflatten(0, (-1, sets))
        visible, asked = features.split([keep.shape[1], targets.shape[2]], dim=2)
        return visible, asked
