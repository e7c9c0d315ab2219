"""TiCo: embeddings of two views agree, and their moving covariance is kept spread over all directions.

Zhu, Moraes, Karakulak, Sobol, Canziani and LeCun, "TiCo: transformation invariance and covariance contrast for
self-supervised visual representation learning", 2022, arXiv:2206.10698. Defaults are the paper's loss (beta, rho) with
BYOL's views, heads and momentum, which it takes over.

There is no authors' code. Whether the gradient flows through this batch's part of the covariance is read in two ways,
batch_gradient: lightly stops it, after the paper's figure, and sayannag/TiCo-pytorch, whose loss others took over, lets
it flow. Which of them algorithm 1 has is not confirmed here.
"""

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.redundancy import second_moment, tico
from selfsup.parts.schedules import cosine
from selfsup.views import Views


@final
class TiCo(Method):
    """A query meets its key, made by a slowly moving copy, and avoids what queries were, as their covariance says."""

    paper, family = "2206.10698", "redundancy reduction"
    modalities = None  # any: what it learns from a view does not depend on its kind

    class Hyper(Knobs):
        decay: float = knob(0.9, "of the covariance, a step", symbol="β", sweep=Choice(0.0, 0.9, 0.99), ge=0, lt=1)
        contrast: float = knob(8.0, "weight of the covariance", symbol="ρ", sweep=Range(1.0, 50.0, log=True), ge=0)
        batch_gradient: bool = knob(False, "learn through this batch's part of it, too", sweep=Choice(False, True))
        momentum: float = knob(0.99, "of the key encoder at first", sweep=Choice(0.9, 0.99, 0.996), ge=0, le=1)
        hidden: int = knob(4096, "hidden channels of the projector", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(
            1.0, "share of first views that are blurred; of second ones a tenth", sweep=Choice(0.0, 1.0), ge=0, le=1
        )

    covariance: Tensor  # (dim, dim): C, of all queries until now

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.dim)
        self.key, self.key_projector = ema_copy(self.backbone), ema_copy(self.projector)
        self.register_buffer("covariance", torch.zeros(hyper.dim, hyper.dim))
        self.decay, self.contrast, self.momentum = hyper.decay, hyper.contrast, hyper.momentum
        self.batch_gradient = hyper.batch_gradient

    def forward(self, batch: Batch) -> Out:
        query = F.normalize(self.projector(self.backbone.pooled(batch.views[0].value)).float(), dim=1)
        with torch.no_grad():
            key = F.normalize(self.key_projector(self.key.pooled(batch.views[1].value)).float(), dim=1)
        moment = self._moved(second_moment(query if self.batch_gradient else query.detach()))
        return Out(tico(query, key, moment, contrast=self.contrast), aux={"queries": query})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        self.covariance.copy_(self._moved(second_moment(aux["queries"])))
        momentum = cosine(t, self.momentum, 1.0)
        ema_update(self.key, self.backbone, momentum)
        ema_update(self.key_projector, self.projector, momentum)

    def _moved(self, moment: Tensor) -> Tensor:
        """(dim, dim), of this batch -> (dim, dim): the covariance with this batch in it."""
        return torch.lerp(moment, self.covariance, self.decay)
