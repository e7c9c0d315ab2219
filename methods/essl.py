"""E-SSL: SimCLR's invariance to augmentations, with prediction of a small crop's rotation beside it.

Dangovski, Jing, Loh, Han, Srivastava, Cheung, Agrawal and Soljačić, "Equivariant contrastive learning", ICLR 2022,
arXiv:2111.00899. Defaults are the paper's E-SimCLR for ImageNet. The authors' code says that a view is contrasted with
those of the other kind alone, not with its own kind as SimCLR's, and that rotations are predicted through a bottleneck,
which their code for CIFAR-10 does without.

Deviations from the authors' code: none but those of all objectives is known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, recipes
from selfsup.parts.contrastive import batch_nce
from selfsup.parts.heads import mlp
from selfsup.parts.patch import turns
from selfsup.sections import Setup
from selfsup.views import Views

TURNS = 4  # the quarters of a circle


@final
class ESSL(Method):
    """Insensitive to crops and colors, sensitive to rotations: the loss of each, side by side."""

    paper, family = "2111.00899", "equivariance"

    class Hyper(Knobs):
        equivariance: float = knob(0.4, "weight of predicting rotations", symbol="λ", sweep=Range(0.0, 1.0), ge=0)
        temperature: float = knob(0.2, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        hidden: int = knob(2048, "hidden channels of projector and predictor", sweep=Choice(512, 2048), gt=0)
        dim: int = knob(128, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        bottleneck: int | None = knob(128, "channels of the predictor before its last layer; null: as hidden", gt=0)
        small: int | None = knob(96, "pixels a side of the crop that is turned; null: the image size", gt=0)
        small_min: float = knob(0.05, "smallest crop that is turned, as a share of the image", gt=0, le=1)
        small_max: float = knob(0.14, "largest crop that is turned", sweep=Range(0.14, 1.0), gt=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(
            1.0, "share of first views that are blurred; of others a tenth", sweep=Choice(0.0, 1.0), ge=0, le=1
        )

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        first, second = recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur)
        scale = hyper.small_min, hyper.small_max
        small = replace(second, size=hyper.small, scale=scale, solarize=0.0, resample="bilinear")  # as in its code
        return Views((first, second, small))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("small", hyper.small, setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.hidden, hyper.dim, out="norm")
        self.predictor = _predictor(self.backbone.dim, hyper.hidden, hyper.bottleneck)
        self.temperature, self.equivariance = hyper.temperature, hyper.equivariance

    def forward(self, batch: Batch) -> Out:
        one, two = (self.projector(self.backbone.pooled(view.value)) for view in batch.views[:2])  # normalized apart
        forth, back = (batch_nce(a, b, temperature=self.temperature) for a, b in ((one, two), (two, one)))
        invariance = (forth + back) / 2
        rotation = self._rotation(batch)
        return Out(invariance + self.equivariance * rotation, {"invariance": invariance, "rotation": rotation})

    def _rotation(self, batch: Batch) -> Tensor:
        """-> (): the cross-entropy of each small crop's four rotations; ln 4 by chance"""
        logits = self.predictor(self.backbone.pooled(turns(batch.views[2].value, self.backbone.patch))).float()
        truth = torch.arange(TURNS, device=logits.device).repeat_interleave(len(batch.sample))
        return F.cross_entropy(logits, truth)


def _predictor(dim: int, hidden: int, bottleneck: int | None) -> nn.Sequential:
    """(B, dim) -> (B, TURNS): two hidden layers, and a linear one of `bottleneck` channels, each layer-normalized."""
    layers: list[nn.Module] = [nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU()]
    if bottleneck:
        layers += [nn.Linear(hidden, bottleneck), nn.LayerNorm(bottleneck)]
    return nn.Sequential(*layers, nn.Linear(bottleneck or hidden, TURNS))
