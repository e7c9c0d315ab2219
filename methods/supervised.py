"""Supervised: cross-entropy on labels, the baseline of objectives without them.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385. Defaults are the
views and loss of Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, arXiv:1706.02677.

Deviations from the authors' code: none but those of all objectives is known.
"""

from collections.abc import Mapping
from typing import final

from torch import nn

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.views import Crop, Views


@final
class Supervised(Method):
    """A linear layer on the encoder names the class of each image; images without a label are passed over."""

    paper, family = "1512.03385", "baseline"
    modalities = None  # any: what it learns from a view does not depend on its kind
    needs_labels = True

    class Hyper(Knobs):
        smoothing: float = knob(0.0, "share of the truth that all classes share", sweep=Choice(0.0, 0.1), ge=0, lt=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = nn.Linear(self.backbone.dim, info.num_classes)
        self.smoothing = hyper.smoothing

    def forward(self, batch: Batch) -> Out:
        logits = self.head(self.backbone.pooled(batch.views[0].value))
        loss = cross_entropy(logits, batch.label, smoothing=self.smoothing)
        return Out(loss, {"accuracy": accuracy(logits, batch.label)})
