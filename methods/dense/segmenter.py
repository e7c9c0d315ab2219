"""Segmenter: a linear layer on each token names the class of its pixels, and the encoder is trained with it.

Strudel, Garcia, Laptev and Schmid, "Segmenter: Transformer for semantic segmentation", ICCV 2021, arXiv:2105.05633: the
linear decoder, whose logits are interpolated to the pixels; cross-entropy over all pixels that have a class.
"""

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, MapSpec, Views


@final
class Segmenter(Method):
    """A linear layer on each token names the class of each pixel; pixels without one are passed over."""

    paper, family = "2105.05633", "baseline"

    class Hyper(Knobs):
        classes: int = knob(150, "of the maps: more than their largest number", ge=2)
        crop_min: float = knob(0.25, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), maps=(MapSpec("seg", hyper.classes),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.side = info.sizes[0]
        self.head = nn.Linear(self.backbone.dim, hyper.classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        [map_] = batch.maps
        logits = self._upsampled(self._coarse(batch.views[0].value), map_.shape[-1])
        return Out(cross_entropy(logits, map_), {"accuracy": accuracy(logits, map_)})

    def predict(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, S * S, 1): the class of each pixel, row by row. An image at a time, since logits are many."""
        guesses = [self._upsampled(image[None], self.side).argmax(dim=1) for image in self._coarse(view)]
        return torch.cat(guesses).flatten(1)[..., None]

    def _coarse(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, C, h, w): logits of each token"""
        logits: Tensor = self.head(self.backbone.spatial(view).movedim(1, -1))
        return logits.movedim(-1, 1)

    @staticmethod
    def _upsampled(logits: Tensor, side: int) -> Tensor:
        """(B, C, h, w) -> (B, C, S, S)"""
        return F.interpolate(logits.float(), (side, side), mode="bilinear")
