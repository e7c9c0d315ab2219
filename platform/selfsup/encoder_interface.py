"""The interface of encoders, which objectives train and evaluation freezes.

B: batch, D: channels.
"""

import abc
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Tokens


class Encoder(nn.Module, abc.ABC):
    """An encoder, which objectives train and evaluation freezes. trunk: a timm model with its own state dict. dim: D.

    patch: points of a token along each axis, or one number for all; None for an encoder that sees samples whole.
    pieces: number of parts in which a batch goes through the trunk, to save memory. position_offset: tokens a side
    beyond the grid's own that resized positions are computed for. packs: whether views of several sizes go through the
    trunk in one sequence.
    """

    trunk: nn.Module
    dim: int
    patch: Patch | None = None
    pieces: int = 1
    position_offset: float = 0.0
    packs: bool = False

    @abc.abstractmethod
    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, D): one vector a sample. view: as the stream delivers it."""

    def pooled_each(self, views: Sequence[Tokens | Tensor]) -> list[Tensor]:
        """-> (B, D) of each view, as of `pooled`."""
        return [self.pooled(view) for view in views]

    @abc.abstractmethod
    def spatial(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, D, H, W): one vector a place; H and W are the encoder's own. view: as the stream delivers it."""

    def pooled_and_spatial(self, view: Tokens | Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, D), (B, D, H, W): those of `pooled` and `spatial`, of one forward pass where there is one for both."""
        return self.pooled(view), self.spatial(view)

    def features(self, view: Tokens | Tensor, kind: str, blocks: int) -> Tensor:
        """-> (B, P * D): vectors of a kind, as FeatureChoice has them, after each of the last blocks, concatenated."""
        assert (kind, blocks) == ("pooled", 1), f"no {kind} of {blocks} blocks"
        return self.pooled(view)

    @property
    def num_layers(self) -> int:
        """Return after how many layers there are features: blocks of a ViT, resolutions of a CNN."""
        return 1

    def layers(self, view: Tokens | Tensor, numbers: Collection[int]) -> dict[int, Tensor]:
        """Return number -> (B, D_i), the features after each of these layers; the last layer's are `pooled`'s."""
        assert set(numbers) <= {1}, f"one layer, not {numbers}"
        return {number: self.pooled(view) for number in numbers}
