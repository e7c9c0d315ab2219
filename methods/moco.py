"""MoCo v2: a query is contrasted with its EMA-encoded key against a queue of earlier keys.

He, Fan, Wu, Xie and Girshick, "Momentum contrast for unsupervised visual representation learning", CVPR 2020,
arXiv:1911.05722; v2: Chen, Fan, Girshick and He, "Improved baselines with momentum contrastive learning", 2020,
arXiv:2003.04297. Defaults are v2's; v1 is head: linear, jitter: v1, blur: 0, temperature: 0.07.

Deviations from the authors' code: keys are normalized in `split` groups that are interleaved, where their GPUs hold
parts that are shuffled anew at each step; queries in train.norm_groups, which stands for their GPUs.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, norms, recipes
from selfsup.parts.bank import Queue
from selfsup.parts.contrastive import info_nce
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.tokens import grouped
from selfsup.sections import Setup
from selfsup.views import Views


@final
class MoCo(Method):
    """A query is matched with its key, made by a slowly moving copy of the encoder, among keys of earlier batches."""

    paper, family = "2003.04297", "contrastive"
    modalities = None  # any: what it learns from a view does not depend on its kind
    initialize = staticmethod(initial.unit_residuals)

    class Hyper(Knobs):
        temperature: float = knob(0.2, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        queue: int = knob(65536, "keys of earlier samples", symbol="K", sweep=Choice(1024, 4096, 16384, 65536), gt=0)
        momentum: float = knob(0.999, "of the key encoder", symbol="m", sweep=Choice(0.9, 0.99, 0.999), ge=0, le=1)
        head: Literal["mlp", "linear"] = knob("mlp", "projection: v2's, or v1's", sweep=Choice("mlp", "linear"))
        dim: int = knob(128, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        split: int = knob(8, "groups of samples by which keys are batch-normalized", ge=1)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        jitter: Literal["v1", "v2"] = knob("v2", "color jitter: of 80 % of views, or v1's, of all and after gray")
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        recipe = recipes.instdisc if hyper.jitter == "v1" else recipes.moco
        crop = recipe(crop_min=hyper.crop_min, blur=hyper.blur)
        return Views((crop, crop))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_groups("split", hyper.split, setup.share)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        hidden = [self.backbone.dim] * (2 if hyper.head == "mlp" else 1)
        self.projector = mlp(*hidden, hyper.dim, norm=False, out="bias")
        self.key, self.key_projector = ema_copy(self.backbone), ema_copy(self.projector)
        norms.keep_whole(self.key)  # its groups are those of `split`, which are not the queries'
        self.queue = Queue(hyper.queue, hyper.dim)
        self.temperature, self.momentum, self.split = hyper.temperature, hyper.momentum, hyper.split

    def forward(self, batch: Batch) -> Out:
        query = self.projector(self.backbone.pooled(batch.views[0].value))
        with torch.no_grad():
            pooled = grouped(batch.views[1].value, self.split, self.key.pooled)
            keys = F.normalize(self.key_projector(pooled).float(), dim=1)
        loss = info_nce(query, keys, self.queue.rows, temperature=self.temperature)
        return Out(loss, aux={"keys": keys})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.queue.push(aux["keys"])
        ema_update(self.key, self.backbone, self.momentum)
        ema_update(self.key_projector, self.projector, self.momentum)
