"""VICReg: embeddings of two views agree, each dimension keeps its variance, and dimensions are decorrelated.

Bardes, Ponce and LeCun, "VICReg: variance-invariance-covariance regularization for self-supervised learning",
ICLR 2022, arXiv:2105.04906. Defaults are the paper's for ImageNet, but for the terms of the loss, which are weighted as
in the authors' code.

Deviations from the authors' code: none but those of all objectives is known.
"""

from collections.abc import Mapping
from typing import final

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.heads import mlp
from selfsup.parts.redundancy import vicreg
from selfsup.views import Views


@final
class VICReg(Method):
    """Two views' embeddings are drawn together; over the batch, each channel keeps a deviation of 1, alone."""

    paper, family = "2105.04906", "redundancy reduction"
    modalities = None  # any: what it learns from a view does not depend on its kind

    class Hyper(Knobs):
        invariance: float = knob(
            25.0, "weight of the views' distance", symbol="λ", sweep=Range(1.0, 50.0, log=True), ge=0
        )
        variance: float = knob(25.0, "weight of deviations below 1", symbol="μ", sweep=Range(1.0, 50.0, log=True), ge=0)
        covariance: float = knob(1.0, "weight of covariances", symbol="ν", sweep=Range(0.1, 10.0, log=True), ge=0)
        dim: int = knob(8192, "channels of the expander, hidden and out", sweep=Choice(512, 2048, 8192), gt=0)
        layers: int = knob(3, "linear layers of the expander", sweep=Choice(2, 3), ge=1, le=100)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)
        symmetric: bool = knob(True, "both views are drawn alike; false: as BYOL's two, in the authors' code")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        if not hyper.symmetric:
            return Views(recipes.byol(crop_min=hyper.crop_min, blur=min(1.0, 2 * hyper.blur)))  # of both about `blur`
        crop = recipes.vicreg(crop_min=hyper.crop_min, blur=hyper.blur)
        return Views((crop, crop))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.expander = mlp(self.backbone.dim, *[hyper.dim] * hyper.layers)
        self.weights = hyper.invariance, hyper.variance, hyper.covariance

    def forward(self, batch: Batch) -> Out:
        one, two = (self.expander(self.backbone.pooled(view.value)) for view in batch.views)  # normalized apart
        terms = vicreg(one, two)
        loss = sum((weight * term for weight, term in zip(self.weights, terms, strict=True)), one.new_zeros(()))
        return Out(loss, terms._asdict())
