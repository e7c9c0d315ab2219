"""MoCo v3: MoCo without a queue, against the keys of a large batch, for ViTs and CNNs.

Chen, Xie and He, "An empirical study of training self-supervised vision transformers", ICCV 2021, arXiv:2104.02057.
Defaults are the paper's for ViTs on ImageNet; its ResNet-50 has crop_min: 0.2, temperature: 1.0.

Deviation from the authors' code: the momentum with which keys follow a step is that of this step, not of the next one.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.encoder import Encoder, TokenEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import initial, recipes
from selfsup.parts.contrastive import batch_nce
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.schedules import cosine
from selfsup.views import Views


@final
class MoCoV3(Method):
    """A prediction from each view is matched with the other view's key among the keys of the whole batch."""

    paper, family = "2104.02057", "contrastive"
    modalities = None  # any: what it learns from a view does not depend on its kind
    initialize = staticmethod(initial.mocov3)

    class Hyper(Knobs):
        temperature: float = knob(0.2, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        momentum: float = knob(
            0.99, "of the key encoder at first", symbol="m", sweep=Choice(0.9, 0.99, 0.996), ge=0, le=1
        )
        hidden: int = knob(4096, "hidden channels of projector and predictor", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        frozen_patches: bool = knob(True, "a ViT's patch embedding stays as it begins", sweep=Choice(True, False))
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(1.0, "share of first views that are blurred; of second ones a tenth", ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur, resample="bilinear"))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        vit = isinstance(self.backbone, TokenEncoder)  # section 4.2: its heads are deeper than a ResNet's
        if vit and hyper.frozen_patches:
            self.backbone.trunk.patch_embed.requires_grad_(False)
        hidden = [hyper.hidden] * (2 if vit else 1)
        self.projector = mlp(self.backbone.dim, *hidden, hyper.dim, out="plain norm")
        self.predictor = mlp(hyper.dim, hyper.hidden, hyper.dim, out="plain norm" if vit else "linear")
        self.key, self.key_projector = ema_copy(self.backbone), ema_copy(self.projector)
        self.temperature, self.momentum = hyper.temperature, hyper.momentum

    def forward(self, batch: Batch) -> Out:
        first, second = (self.predictor(self.projector(self.backbone.pooled(view.value))) for view in batch.views)
        with torch.no_grad():
            one, two = (self.key_projector(self.key.pooled(view.value)) for view in batch.views)
        forth = batch_nce(first, two, temperature=self.temperature)
        back = batch_nce(second, one, temperature=self.temperature)
        return Out(2 * self.temperature * (forth + back))  # algorithm 1: so it hardly depends on the temperature

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = cosine(t, self.momentum, 1.0)
        ema_update(self.key, self.backbone, momentum)
        ema_update(self.key_projector, self.projector, momentum)
