"""PixPro: smoothed features of each place match an EMA encoder's at the same place of another view.

Xie, Lin, Zhang, Cao, Lin and Hu, "Propagate yourself: exploring pixel-level consistency for unsupervised visual
representation learning", CVPR 2021, arXiv:2011.10043. Defaults are the paper's for ImageNet, without its branch for
whole images. As the authors' code has it: the loss is twice the paper's, what is propagated are unit vectors, and
distances are those in an image that is stretched to a square; its projector has 4096 hidden channels in the recipe.

Deviations from the authors' code: the momentum with which the target follows a step is that of this step, not of the
next one.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.places import agreement, at_each, close, places, propagated
from selfsup.parts.schedules import cosine
from selfsup.views import Views


@final
class PixPro(Method):
    """Smoothed features of one view agree with a slowly moving network's features of the other, place by place."""

    paper, family, backbones = "2011.10043", "distillation", ("cnn",)

    class Hyper(Knobs):
        reach: float = knob(
            0.7, "how far places may lie apart, in their diagonals", symbol="T", sweep=Range(0.35, 2.0), gt=0
        )
        sharpness: float = knob(2.0, "exponent of similarity", symbol="γ", sweep=Choice(0.5, 1.0, 2.0, 4.0), gt=0)
        layers: int = knob(1, "linear layers of what is propagated", symbol="l", sweep=Choice(1, 2, 3), ge=1, le=100)
        momentum: float = knob(0.99, "of the target at first", sweep=Choice(0.9, 0.97, 0.99, 0.996), ge=0, le=1)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the space that is predicted", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(1.0, "share of first views that are blurred; of second ones a tenth", ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.byol(crop_min=hyper.crop_min, blur=hyper.blur, resample="bilinear"))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.dim, out="bias")
        self.transform = mlp(*[hyper.dim] * (hyper.layers + 1), out="bias")
        self.target, self.target_projector = ema_copy(self.backbone), ema_copy(self.projector)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        maps = [self.backbone.spatial(view.value) for view in batch.views]
        one, two = (self._smoothed(at_each(self.projector, places(map_))) for map_ in maps)
        with torch.no_grad():
            others = [self.target.spatial(view.value) for view in batch.views]
            first, second = (at_each(self.target_projector, places(map_)) for map_ in others)
        rows, columns = maps[0].shape[2:]
        a, b = (view.box for view in batch.views)
        near = close(a, b, (rows, columns), reach=self.hyper.reach)
        loss = 2 * (agreement(one, second, near) + agreement(two, first, near.mT))
        return Out(loss, {"overlapping": near.any(2).any(1).float().mean()})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.target, self.backbone, momentum)
        ema_update(self.target_projector, self.projector, momentum)

    def _smoothed(self, x: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, D): the propagation module, section 3.2."""
        return propagated(x, at_each(self.transform, x), sharpness=self.hyper.sharpness)
