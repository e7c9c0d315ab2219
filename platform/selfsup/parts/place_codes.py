"""Codes of the places of tokens, for parts beside an encoder: fixed ones of a grid, or learned ones of centers.

B: batch, N: tokens, K: some of them, D: channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import SparseEncoder, TokenEncoder
from selfsup.parts.groups import CenterPositions, centers_of
from selfsup.parts.positions import sincos
from selfsup.parts.tokens import Grid, Tokens

PlaceCodes = nn.Module  # (B, K) int64, all tokens or None -> (B, K, D)


class GridCodes(nn.Module):
    """Sines and cosines of the places of a grid."""

    positions: Tensor

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.register_buffer("positions", sincos(grid, width), persistent=False)

    def forward(self, numbers: Tensor, tokens: Tokens | None = None) -> Tensor:  # noqa: ARG002
        return F.embedding(numbers, self.positions)


class CenterCodes(nn.Module):
    """Codes of the centers of groups of points, which two layers learn."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = CenterPositions(width)

    def forward(self, numbers: Tensor, tokens: Tokens | None = None) -> Tensor:
        assert tokens is not None, "centers are the tokens'"
        code: Tensor = self.layers(centers_of(tokens.value).take_along_dim(numbers[..., None], dim=1))
        return code


def places_of(encoder: SparseEncoder, width: int) -> PlaceCodes:
    """Return the codes of the places of an encoder's tokens."""
    is_of_groups = isinstance(encoder, TokenEncoder) and encoder.groups is not None
    return CenterCodes(width) if is_of_groups else GridCodes(encoder.grid, width)
