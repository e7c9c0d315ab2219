"""The encoder of text: CLIP's pre-norm transformer, whose feature is that of the last token, a text's end.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, arXiv:2103.00020,
section 2.4. Its GELU is exact, as open_clip's, where the authors' weights have x * sigmoid(1.702 x).

B: batch, L: tokens, D: channels.
"""

from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup import blocks
from selfsup.encoder_interface import Encoder
from selfsup.parts.pieces import in_pieces
from selfsup.parts.tokens import Tokens


class TextTrunk(nn.Module):
    """The layers of a text encoder at their initial weights, which are those of CLIP's authors."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.token_embed = nn.Embedding(vocabulary, width)
        self.pos_embed = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        block: Any
        for block in self.blocks:
            inward, outward = width**-0.5, (2 * depth * width) ** -0.5
            for layer, std in (
                (block.attn.qkv, inward),
                (block.attn.proj, outward),
                (block.mlp.fc1, (2 * width) ** -0.5),
                (block.mlp.fc2, outward),
            ):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)


class TextEncoder(Encoder):
    """A transformer over tokens, value (B, L, 1) int64, their numbers in the vocabulary; padding follows the last.

    causal: each token reads those before it alone; else all but padding.
    """

    trunk: Any
    patch = 1

    def __init__(self, vocabulary: int, *, length: int, width: int, depth: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.trunk, self.dim, self.causal = TextTrunk(vocabulary, length, width, depth, heads), width, causal

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, L, 1) tokens -> (B, L, D), after the final norm"""
        valid = torch.ones_like(tokens.value[..., 0], dtype=torch.bool) if tokens.valid is None else tokens.valid

        def encode(hidden: Tensor, valid: Tensor) -> tuple[Tensor]:
            for state in blocks.states(self.trunk, hidden, tokens.grid, tokens.place, self._attended(valid)):
                hidden = state
            return (self.trunk.norm(hidden),)

        hidden = self.trunk.token_embed(tokens.value[..., 0]) + self.trunk.pos_embed
        out: Tensor
        [out] = in_pieces(encode, hidden, self.pieces, self.trunk, valid)
        return out

    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """(B, L, 1) tokens -> (B, D): the feature of the last valid token"""
        assert isinstance(view, Tokens), "text is tokens"
        hidden: Tensor = self(view)
        if view.valid is None:
            return hidden[:, -1]
        last = view.valid.sum(1).clamp_min(1) - 1
        return hidden.take_along_dim(last[:, None, None], dim=1)[:, 0]

    def spatial(self, view: Tokens | Tensor) -> Tensor:
        """(B, L, 1) tokens -> (B, D, L)"""
        assert isinstance(view, Tokens), "text is tokens"
        hidden: Tensor = self(view)
        return hidden.mT

    def _attended(self, valid: Tensor) -> Tensor:
        """(B, L) bool -> (1 or B, 1, 1 or L, L) bool: the tokens that attention reads"""
        if not self.causal:
            return valid[:, None, None]
        length = valid.shape[1]
        return torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()[None, None]
