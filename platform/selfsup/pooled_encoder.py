"""Encoders of images: models of timm of any kind, up to their pooling.

B: batch, D: channels.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from selfsup import families
from selfsup.encoder_interface import Encoder
from selfsup.parts.pieces import Maps, in_pieces
from selfsup.parts.tokens import Tokens


class PooledEncoder(Encoder):
    """A model of images, up to its pooling: a CNN, a Swin or any other of timm. name: for errors.

    Its weights are in channels-last order: faster on CPUs and GPUs alike.
    """

    trunk: Any

    def __init__(self, trunk: nn.Module, dim: int, name: str) -> None:
        super().__init__()
        self.trunk, self.dim, self.name = trunk, dim, name
        for weight in trunk.parameters():
            if weight.ndim == 4:  # no other rank has that order
                weight.data = weight.data.to(memory_format=torch.channels_last)  # 1 x 1 kernels, too

    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)"""
        [pooled] = self._through(lambda images: (self.trunk(images),), view)
        return pooled

    def spatial(self, view: Tokens | Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w): the features before pooling."""
        [places] = self._through(lambda images: (self.trunk.forward_features(images),), view)
        return self._channels_first(places)

    def pooled_and_spatial(self, view: Tokens | Tensor) -> tuple[Tensor, Tensor]:
        places, pooled = self._through(self._places_and_pooled, view)
        return pooled, self._channels_first(places)

    def stages(self, view: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> (B, D_i, h_i, w_i) of each resolution, the finest first."""
        return list(
            self._through(lambda images: tuple(self.trunk.forward_intermediates(images, intermediates_only=True)), view)
        )

    @property
    def num_layers(self) -> int:
        return len(getattr(self.trunk, "feature_info", [0]))

    def layers(self, view: Tokens | Tensor, numbers: Collection[int]) -> dict[int, Tensor]:
        """Return number -> (B, D_i): the mean over each of these resolutions, the finest first; last, `pooled`."""
        assert isinstance(view, Tensor), "a pooled encoder sees images, not tokens"
        if not set(numbers) - {self.num_layers}:
            return {number: self.pooled(view) for number in numbers}
        *stages, pooled = self._through(self._stages_and_pooled, view)
        last = self.num_layers
        return {number: pooled if number == last else stages[number - 1].mean((2, 3)) for number in sorted(numbers)}

    def _places_and_pooled(self, images: Tensor) -> Maps:
        """(B, C, H, W) -> (B, D, h, w), or channels last; (B, D)"""
        places = self.trunk.forward_features(images)
        return places, self.trunk.forward_head(places)

    def _channels_first(self, places: Tensor) -> Tensor:
        """-> (B, D, h, w): Swin and others end in channels"""
        return places if places.shape[1] == self.dim else places.permute(0, 3, 1, 2)

    def _stages_and_pooled(self, images: Tensor) -> Maps:
        """(B, C, H, W) -> those of `stages`, then (B, D), by one forward pass."""
        last, stages = self.trunk.forward_intermediates(images)
        return *stages, self.trunk.forward_head(last)

    def _through(self, encode: Callable[[Tensor], Maps], view: Tokens | Tensor) -> Maps:
        """Apply `encode` in pieces. Raises SpecError on the meta device for images that the trunk cannot see."""
        assert isinstance(view, Tensor), "a pooled encoder sees images, not tokens"
        images = view.contiguous(memory_format=torch.channels_last)
        try:
            return in_pieces(encode, images, self.pieces, self.trunk)
        except Exception as error:  # whatever the models of timm raise
            if not view.is_meta or "overflow" in str(error):
                raise
            raise families.unseen(self.name, view.shape[-1], error) from error

    @property
    def widths(self) -> list[int]:
        """Return the channels D_i of `stages`."""
        return [stage["num_chs"] for stage in self.trunk.feature_info]
