"""The last attention of a plain ViT: its keys, and how its class token attends to the patches.

B: batch, H: heads, T: prefix and N patches, d: channels of a head.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from selfsup.encoder import TokenEncoder
from selfsup.parts.tokens import Tokens


class LastAttention(TorchFunctionMode):
    """The arguments of the latest attention while it is entered, whatever family the ViT is of.

    query, key: (B, H, T, d), after norms and rotations. mask: what is added to their products; None: nothing.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scale: float

    @classmethod
    def of(cls, encoder: TokenEncoder, view: Tokens) -> Self:
        """Return that of the encoder's last block."""
        last = cls()
        with last:
            encoder(view)
        return last

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.query, self.key = args[:2]
            self.mask = given.get("attn_mask")
            self.scale = given.get("scale") or self.query.shape[-1] ** -0.5
        return func(*args, **given)

    def of_first_token(self) -> Tensor:
        """-> (B, H, T): what the first token, a class token, reads of each token; the shares of a head sum to 1"""
        product = self.scale * self.query[:, :, :1] @ self.key.mT
        mask = None if self.mask is None else self.mask[..., :1, :]
        if mask is not None:
            product = product.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else product + mask
        return product.softmax(-1)[:, :, 0]


def keys(encoder: TokenEncoder, view: Tokens) -> Tensor:
    """-> (B, N, H * d): the patches' keys, the heads' one after the other"""
    key = LastAttention.of(encoder, view).key[:, :, encoder.num_prefix :]
    return key.transpose(1, 2).flatten(2)


def class_attention(encoder: TokenEncoder, view: Tokens) -> Tensor:
    """-> (B, N, H): the class token's attention to each patch, by head"""
    return LastAttention.of(encoder, view).of_first_token()[:, :, encoder.num_prefix :].mT
