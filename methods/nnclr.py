"""NNCLR: the nearest neighbor of one view among earlier embeddings is the positive of the other view.

Dwibedi, Aytar, Tompson, Sermanet and Zisserman, "With a little help from my friends: nearest-neighbor contrastive
learning of visual representations", ICCV 2021, arXiv:2104.14548. Defaults are the paper's for ImageNet.

There is no authors' code: the loss is compared with lightly's, queue and heads follow the paper, and the views are
BYOL's, which no text of the paper confirms.
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
from selfsup.parts.bank import Queue
from selfsup.parts.contrastive import batch_nce
from selfsup.parts.heads import mlp
from selfsup.parts.precision import no_autocast
from selfsup.views import Views


@final
class NNCLR(Method):
    """The neighbor of one view, in a queue of earlier views, picks the prediction of the other out of the batch."""

    paper, family = "2104.14548", "contrastive"
    modalities = None  # any: what it learns from a view does not depend on its kind

    class Hyper(Knobs):
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        queue: int = knob(98304, "views of earlier samples", symbol="|Q|", sweep=Choice(8192, 32768, 98304), gt=0)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 2048), gt=0)
        predictor: int = knob(4096, "hidden channels of the predictor", sweep=Choice(1024, 4096), gt=0)
        dim: int = knob(256, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(1.0, "share of first views that are blurred; of second ones a tenth", ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.hidden, hyper.dim, out="norm")
        self.predictor = mlp(hyper.dim, hyper.predictor, hyper.dim, out="bias")
        self.queue = Queue(hyper.queue, hyper.dim)
        self.temperature = hyper.temperature

    def forward(self, batch: Batch) -> Out:
        first, second = (self.projector(self.backbone.pooled(view.value)) for view in batch.views)
        (one, cosine), (two, _) = self._nearest(first), self._nearest(second)
        forth = batch_nce(one, self.predictor(second), temperature=self.temperature)
        back = batch_nce(two, self.predictor(first), temperature=self.temperature)
        return Out((forth + back) / 2, {"neighbour_cosine": cosine.mean()}, aux={"views": first})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.queue.push(F.normalize(aux["views"].float(), dim=1))  # of the first views only, as algorithm 1

    @torch.no_grad()
    def _nearest(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) -> (N, D), (N,): the most similar row of the queue, eq. 3, and how similar it is."""
        with no_autocast(view):
            cosine, place = (F.normalize(view.float(), dim=1) @ self.queue.rows.T).max(dim=1)
        return self.queue.rows[place], cosine
