"""Feature distillation: an encoder learns to say of images, and of each of their places, what a trained one says.

Ranzinger, Heinrich, Kautz and Molchanov, "AM-RADIO: agglomerative vision foundation model, reduce all domains into
one", CVPR 2024, arXiv:2312.06709, with one teacher, the spec's `teacher`: the angle between features of images, and
0.9 of it with 0.1 of smooth L1 between features of places.

Deviations from the authors' code: there are several teachers there; encoder and teacher see the same crop at the same
resolution; the hidden layer of a head is as wide as the encoder. Its views are from memory.

B: batch, N: places of the encoder, D: its channels, T: the teacher's.
"""

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.views import Crop, Views


@final
class FeatureDistillation(Method):
    """Two heads, one for images and one for places, are thrown away afterwards; the teacher stays as it is."""

    paper, family = "2312.06709", "distillation"
    modalities = None
    separable = True
    learns_from = "features"

    class Hyper(Knobs):
        angle: float = knob(
            0.9,
            "weight of the angle between features of a place; the rest is of their smooth L1",
            symbol="α",
            sweep=Choice(0.0, 0.5, 0.9, 1.0),
            ge=0,
            le=1,
        )
        summary: float = knob(1.0, "weight of features of images", sweep=Choice(0.0, 1.0), ge=0)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert info.teacher, "it learns from a trained encoder's features"
        self.hyper, self.teacher = hyper, info.teacher
        self.image_head, self.place_head = (head(self.backbone.dim, self.teacher.dim) for _ in range(2))

    def forward(self, batch: Batch) -> Out:
        view, angle = batch.views[0].value, self.hyper.angle
        pooled, places = self.backbone.pooled_and_spatial(view)
        of_image, of_places = self.teacher.features(view, places.shape[2:])
        image, own = self.image_head(pooled).float(), self.place_head(places.flatten(2).mT).float()
        summary, direction, error = apart(image, of_image), apart(own, of_places), F.smooth_l1_loss(own, of_places)
        loss = self.hyper.summary * summary + angle * direction + (1 - angle) * error
        return Out(loss, {"image_angle": summary, "place_angle": direction, "place_error": error})


def head(width: int, values: int) -> nn.Sequential:
    """(..., D) -> (..., T): the paper's adaptor"""
    return nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, values))


def apart(own: Tensor, other: Tensor) -> Tensor:
    """(..., T), (..., T) -> (): one less the cosine between features"""
    return 1 - F.cosine_similarity(own, other, dim=-1).mean()
