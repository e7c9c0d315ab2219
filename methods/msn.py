"""MSN: a view with masked patches is assigned to the same prototypes as an unmasked view.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat and Ballas, "Masked siamese networks for
label-efficient learning", ECCV 2022, arXiv:2204.07141. Defaults are the authors' for ViT-S/16 on ImageNet.

Deviations from the authors' code: each sample misses patches of its own, where there all of a GPU's batch miss the
same; learning rate and decay end where its cosines of 1.25 times the training are cut off, but bend otherwise; the
gradient of prototypes is the mean of all GPUs', there the sum, of which AdamW makes the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial, multicrop, recipes
from selfsup.parts.clustering import usage
from selfsup.parts.distillation import assigned, me_max
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import Prototypes, gelu_mlp
from selfsup.parts.schedules import ramp
from selfsup.parts.sinkhorn import sinkhorn
from selfsup.sections import Setup
from selfsup.views import Views


@final
class MSN(Method):
    """Anchors, one view without some patches and small ones, are assigned like a target that a teacher sees in full."""

    paper, family, backbones = "2204.07141", "distillation", ("vit",)
    class_token = True
    evaluated = "teacher"
    teacher: TokenEncoder

    class Hyper(Knobs):
        prototypes: int = knob(1024, "clusters", symbol="K", sweep=Choice(64, 256, 1024, 4096), gt=1)
        temperature: float = knob(0.1, "of the anchors", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        target_temperature: float = knob(0.025, "of the targets", symbol="τ⁺", sweep=Range(0.01, 0.1, log=True), gt=0)
        me_max: float = knob(
            1.0, "weight of the mean assignment's entropy", symbol="λ", sweep=Choice(0.0, 1.0, 5.0), ge=0
        )
        iterations: int = knob(3, "Sinkhorn's rounds on the targets; 0: none", sweep=Choice(0, 3), ge=0, le=1000)
        momentum: float = knob(0.996, "of the teacher at first", sweep=Choice(0.99, 0.996, 0.999), ge=0, le=1)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the space of the prototypes", sweep=Choice(64, 128, 256), gt=0)
        mask_ratio: float = knob(0.15, "share of patches missing in the anchor", sweep=Range(0.05, 0.8), gt=0, lt=1)
        crop_min: float = knob(0.3, **multicrop.CROP_MIN)
        local_crops: int = knob(10, "small anchors", sweep=Choice(0, 2, 4, 6, 10), ge=0, le=100)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.3, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        strength: float = knob(0.5, "strength of color jitter", symbol="s", sweep=Range(0.1, 1.0), ge=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        target, anchor, *small = recipes.swav(hyper)
        return Views((target, replace(anchor, mask=RandomMask(hyper.mask_ratio)), *small))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk)
        initial.kaiming_patches(trunk)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.projector = gelu_mlp(self.backbone.dim, hyper.hidden, hyper.hidden, hyper.dim, norm=True)
        self.prototypes = Prototypes(hyper.dim, hyper.prototypes)
        self.teacher, self.teacher_projector = ema_copy(self.backbone), ema_copy(self.projector)

    def forward(self, batch: Batch) -> Out:
        target, anchor, *small = batch.views
        assert isinstance(anchor.mask, IndexMask)
        seen = self.backbone(anchor.value, anchor.mask.keep)
        anchors = [seen[:, 0], *([self.backbone(multicrop.joined(small))[:, 0]] if small else [])]
        # each size is normalized by itself, as in the authors' code
        logits = self.prototypes(torch.cat([self.projector(hidden) for hidden in anchors]))
        with torch.no_grad():
            scores = self.prototypes(self.teacher_projector(self.teacher(target.value)[:, 0]))
            targets = self._sharp(scores)
        loss = assigned(targets, logits.view(-1, *targets.shape), temperature=self.hyper.temperature)
        spread = me_max(F.softmax(logits.float() / self.hyper.temperature, dim=1))
        return Out(loss + self.hyper.me_max * spread, {"assigned": loss, "me_max": spread, **usage(targets)})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = ramp(t, self.hyper.momentum, 1.0, until=1.25)  # it would arrive at 5/4 of training
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        if name == "prototypes.weight":  # as in the authors' code
            return ParamOptions(no_weight_decay=True, clip_group="")
        return ParamOptions()

    def _sharp(self, scores: Tensor) -> Tensor:
        """(N, K) -> (N, K): the target's assignment, sharpened, then so that the batch uses all prototypes alike"""
        log_p = F.log_softmax(scores.float() / self.hyper.target_temperature, dim=1)
        if not self.hyper.iterations:
            return log_p.exp()
        return sinkhorn(log_p, epsilon=1.0, iterations=self.hyper.iterations)
