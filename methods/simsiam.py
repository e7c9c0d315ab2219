"""SimSiam: one view's projection predicts the other's, with a stop-gradient and no negatives.

Chen and He, "Exploring simple siamese representation learning", CVPR 2021, arXiv:2011.10566. Defaults are the paper's
for ImageNet; biases and norms decay with optim.decay_all, as in the authors' code.

Deviations from the authors' code: none but those of all objectives is known.
"""

from collections.abc import Mapping
from typing import final

from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.distillation import negative_cosine
from selfsup.parts.heads import mlp
from selfsup.parts.health import feature_std
from selfsup.views import Views


@final
class SimSiam(Method):
    """Each view's prediction is drawn to the other's projection, with no copy of the network and no negatives."""

    paper, family = "2011.10566", "distillation"
    modalities = None  # any: what it learns from a view does not depend on its kind

    class Hyper(Knobs):
        layers: int = knob(
            3, "linear layers of the projector; the paper has 2 on CIFAR-10", sweep=Choice(2, 3), ge=1, le=100
        )
        dim: int = knob(2048, "channels of the projector, hidden and out", symbol="d", sweep=Choice(512, 2048), gt=0)
        bottleneck: int = knob(512, "hidden channels of the predictor", sweep=Choice(64, 128, 512), gt=0)
        constant: bool = knob(True, "the predictor's learning rate stays at its peak", sweep=Choice(False, True))
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = recipes.moco(crop_min=hyper.crop_min, blur=hyper.blur)
        return Views((crop, crop))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, *[hyper.dim] * hyper.layers, out="plain norm")
        self.predictor = mlp(hyper.dim, hyper.bottleneck, hyper.dim, out="bias")
        self.constant = hyper.constant

    def forward(self, batch: Batch) -> Out:
        one, two = (self.projector(self.backbone.pooled(view.value)) for view in batch.views)  # normalized apart
        first = negative_cosine(self.predictor(one), two.detach())
        second = negative_cosine(self.predictor(two), one.detach())
        return Out((first + second) / 2, {"projection_std": feature_std(one.detach())})  # figure 2: 0 says collapse

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(constant_lr=self.constant and name.startswith("predictor."))  # table 1, "lr not decayed"
