"""Rotation prediction: an encoder tells by which quarter of a circle an image was turned.

Gidaris, Singh and Komodakis, "Unsupervised representation learning by predicting image rotations", ICLR 2018,
arXiv:1803.07728. Defaults are the paper's: all four rotations of every image are in the batch, and their views are its
code's. The recipe is MMSelfSup's, of a ResNet-50, where the paper has an AlexNet.

Deviations from the authors' code: the encoder ends in its pooling, and one linear layer on that names the rotation;
their AlexNet has two more hidden layers.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from selfsup.encoder import Encoder
from selfsup.knob import Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import turns
from selfsup.views import Crop, Views

TURNS = 4  # the quarters of a circle


@final
class Rotation(Method):
    """Images are turned in four ways, which only what they show can tell apart."""

    paper, family = "1803.07728", "pretext"
    separable = True

    class Hyper(Knobs):
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1), resample="bilinear"),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = nn.Linear(self.backbone.dim, TURNS)

    def forward(self, batch: Batch) -> Out:
        logits = self.head(self.backbone.pooled(turns(batch.views[0].value, self.backbone.patch)))
        truth = torch.arange(TURNS, device=logits.device).repeat_interleave(len(batch.sample))
        return Out(cross_entropy(logits, truth), {"accuracy": accuracy(logits, truth)})
