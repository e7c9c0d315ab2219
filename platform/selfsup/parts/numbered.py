"""Numbers of a vocabulary, or of classes, as tokens."""

from torch import Tensor

from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens


def numbered(values: Tensor) -> Tokens:
    """(B, 1, L), below zero for padding -> Tokens, value (B, L, 1) int64, 0 where they are padding"""
    tokens, numbers = patchify(values.long(), 1), values.mT.long()
    return tokens._replace(value=numbers.clamp_min(0), valid=numbers[..., 0] >= 0)
