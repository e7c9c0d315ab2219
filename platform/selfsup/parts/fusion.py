"""Fusion of the maps of a Hiera, for a decoder that then has fine detail, too.

B: batch, U: mask units, D_i: channels of a resolution, D: of the last one.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from selfsup.families import POOLINGS
from selfsup.hiera import HieraEncoder
from selfsup.parts.pieces import Maps


class Fusion(nn.Module):
    """The sum of the maps of a mask unit, each brought to the places and channels of the last by a convolution.

    Hiera (arXiv 2306.00989), section 4, "Multi-scale decoder". As in the authors' code the third resolution, which has
    the places of the last, is left out.
    """

    def __init__(self, encoder: HieraEncoder) -> None:
        super().__init__()
        widths = encoder.widths[:POOLINGS]
        self.heads = nn.ModuleList(_shrinking(width, encoder.dim, POOLINGS - i) for i, width in enumerate(widths))

    def forward(self, maps: Maps) -> Tensor:
        """(B, U, h_i, w_i, D_i) of each resolution, the finest first -> (B, U, h, w, D)"""
        *_, last = maps
        return last + sum(self._reduced(maps))

    def _reduced(self, maps: Maps) -> Iterator[Tensor]:
        for head, finer in zip(self.heads, maps, strict=False):
            reduced: Tensor = head(finer.flatten(0, 1).movedim(3, 1)).movedim(1, 3)
            yield reduced.reshape(*finer.shape[:2], *reduced.shape[1:])


def _shrinking(width: int, dim: int, halvings: int) -> nn.Conv2d:
    """(M, width, h, w) -> (M, dim, h / 2^halvings, w / 2^halvings): a linear layer of each square."""
    return nn.Conv2d(width, dim, 2**halvings, stride=2**halvings)
