"""Barlow Twins: the cross-correlation of two views' embeddings is driven to the identity matrix.

Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: self-supervised learning via redundancy reduction", ICML 2021,
arXiv:2103.03230. Defaults are the paper's for ImageNet.

The authors' code sums the correlations of W GPUs outside autograd, which leaves 1/W of this gradient: LARS turns that
into W times the weight decay, and biases and norms learn W times slower. The recipe for ImageNet has both in its
numbers. Deviations from the authors' code: none but those of all objectives is known.
"""

from collections.abc import Mapping
from typing import final

from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.heads import mlp
from selfsup.parts.redundancy import barlow_twins
from selfsup.views import Views


@final
class BarlowTwins(Method):
    """The cross-correlation of two views' embeddings over the batch is driven to the identity."""

    paper, family = "2103.03230", "redundancy reduction"
    modalities = None  # any: what it learns from a view does not depend on its kind

    class Hyper(Knobs):
        redundancy: float = knob(
            0.005, "weight of correlations between channels", symbol="λ", sweep=Range(1e-4, 0.1, log=True), ge=0
        )
        dim: int = knob(8192, "channels of the projector, hidden and out", sweep=Choice(512, 2048, 8192), gt=0)
        layers: int = knob(3, "linear layers of the projector", sweep=Choice(2, 3), ge=1, le=100)
        bias_lr: float = knob(0.024, "learning rate of biases and norms, as a share of the schedule's", gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(
            1.0, "share of first views that are blurred; of second ones a tenth", sweep=Choice(0.0, 1.0), ge=0, le=1
        )

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, *[hyper.dim] * hyper.layers)
        self.redundancy, self.bias_lr = hyper.redundancy, hyper.bias_lr

    def forward(self, batch: Batch) -> Out:
        one, two = (self.projector(self.backbone.pooled(view.value)) for view in batch.views)  # normalized apart
        return Out(barlow_twins(one, two, redundancy=self.redundancy))

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(
            lr_scale=self.bias_lr if weight.ndim <= 1 else 1.0
        )  # section 2.2: 0.0048 beside the weights' 0.2, of a gradient that is not divided by the number of GPUs
