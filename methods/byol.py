"""BYOL: an online network predicts an EMA target network's projection of another view, without negatives.

Grill, Strub, Altché, Tallec, Richemond, Buchatskaya, Doersch, Avila Pires, Guo, Gheshlaghi Azar, Piot, Kavukcuoglu,
Munos and Valko, "Bootstrap your own latent: a new approach to self-supervised learning", NeurIPS 2020,
arXiv:2006.07733. Defaults are the paper's for ImageNet at 300 epochs.

Deviations from the authors' code: color jitter and crops are torchvision's, with antialiasing, not TensorFlow's and
JAX's, which add brightness, change contrast a channel at a time and draw aspect ratios evenly; weights begin as timm's
and PyTorch's.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.distillation import cosine_error
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.schedules import cosine
from selfsup.views import Views


@final
class BYOL(Method):
    """An online network predicts the projection of a target network, which is the average of its own past."""

    paper, family = "2006.07733", "distillation"
    modalities = None  # any: what it learns from a view does not depend on its kind
    least_batch = 64  # figure 3

    class Hyper(Knobs):
        momentum: float = knob(0.99, "of the target at first", symbol="τ", sweep=Choice(0.9, 0.97, 0.99, 0.996))
        hidden: int = knob(4096, "hidden channels of projector and predictor", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the space that is predicted", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(1.0, "share of first views that are blurred; of second ones a tenth", ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.dim)
        self.predictor = mlp(hyper.dim, hyper.hidden, hyper.dim)
        self.target, self.target_projector = ema_copy(self.backbone), ema_copy(self.projector)
        self.momentum = hyper.momentum

    def forward(self, batch: Batch) -> Out:
        first, second = (self.predictor(self.projector(self.backbone.pooled(view.value))) for view in batch.views)
        with torch.no_grad():  # batch-normalized by the batch's own statistics, too
            one, two = (self.target_projector(self.target.pooled(view.value)) for view in batch.views)
        return Out(cosine_error(first, two) + cosine_error(second, one))

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = cosine(t, self.momentum, 1.0)
        ema_update(self.target, self.backbone, momentum)
        ema_update(self.target_projector, self.projector, momentum)
