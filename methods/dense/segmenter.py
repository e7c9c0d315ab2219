"""Segmenter: a decoder of tokens names the class of each pixel, and the encoder is trained with it.

Strudel, Garcia, Laptev and Schmid, "Segmenter: Transformer for semantic segmentation", ICCV 2021, arXiv:2105.05633: the
linear decoder, whose logits are interpolated to the pixels; cross-entropy over all pixels that have a class. Or that of
`parts.upernet`, whose second head has a weight of 0.4; its four maps have passed the final norm, which MAE's have not,
and no channels are dropped.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder, TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.tokens import Tokens
from selfsup.parts.upernet import UPerNet
from selfsup.sections import Setup
from selfsup.views import Crop, MapSpec, Views

WEIGHTS = 1.0, 0.4  # of the losses of UPerNet's heads
DEPTHS = 1 / 3, 1 / 2, 2 / 3, 1  # of the blocks whose maps it reads


@final
class Segmenter(Method):
    """A decoder of tokens names the class of each pixel; pixels without one are passed over."""

    paper, family = "2105.05633", "baseline"

    class Hyper(Knobs):
        classes: int = knob(150, "of the maps: more than their largest number", ge=2)
        crop_min: float = knob(0.25, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)
        decoder: Literal["linear", "upernet"] = knob("linear", "a layer on each token, or UPerNet on four blocks")
        width: int = knob(512, "channels of UPerNet", ge=2)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), maps=(MapSpec("seg", hyper.classes),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.decoder == "upernet" and not setup.backbone.is_vit:
            message = f"UPerNet reads blocks of a plain ViT, and {setup.backbone.name} is none; use linear"
            yield SpecError(message, "hyper.decoder", "backbone.name")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.side = info.sizes[0]
        if hyper.decoder == "upernet":
            self.upernet = UPerNet(self.backbone.dim, hyper.classes, hyper.width)
            return
        self.head = nn.Linear(self.backbone.dim, hyper.classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        [map_] = batch.maps
        logits = [self._upsampled(coarse, map_.shape[-1]) for coarse in self._coarse(batch.views[0].value)]
        losses = [weight * cross_entropy(own, map_) for weight, own in zip(WEIGHTS, logits, strict=False)]
        return Out(torch.stack(losses).sum(), {"accuracy": accuracy(logits[0], map_)})

    def predict(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, S * S, 1): the class of each pixel, row by row. An image at a time, since logits are many."""
        guesses = [self._upsampled(image[None], self.side).argmax(dim=1) for image in self._coarse(view)[0]]
        return torch.cat(guesses).flatten(1)[..., None]

    def _coarse(self, view: Tokens | Tensor) -> tuple[Tensor, ...]:
        """-> (B, C, h, w) of each head: logits of tokens, or of finer places"""
        if hasattr(self, "upernet"):
            assert isinstance(self.backbone, TokenEncoder), "plans refuse others"
            numbers = [math.ceil(depth * self.backbone.num_layers) for depth in DEPTHS]
            maps = self.backbone.spatial_layers(view, numbers)
            heads: tuple[Tensor, Tensor] = self.upernet([maps[number] for number in numbers])
            return heads
        logits: Tensor = self.head(self.backbone.spatial(view).movedim(1, -1))
        return (logits.movedim(-1, 1),)

    @staticmethod
    def _upsampled(logits: Tensor, side: int) -> Tensor:
        """(B, C, h, w) -> (B, C, S, S)"""
        return F.interpolate(logits.float(), (side, side), mode="bilinear")
