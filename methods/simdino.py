"""SimDINO: the student's features agree with an EMA teacher's across crops, and a coding rate keeps them apart.

Wu, Zhang, Pai, Wang, Singh, Yang, Gao and Ma, "Simplifying DINO via coding rate regularization", ICML 2025,
arXiv:2502.10385. DINO without prototypes, centers and temperatures. Defaults are the authors' command for ViT-B/16 at
100 epochs of batch 512.

Deviations from the authors' code: the coding rate is of the samples of all workers, as with its reduce_cov; by default
its workers divide the second moments of their own samples by the number of all. The features are computed in single
precision after the head.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.distillation import crossed, unit
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import gelu_mlp
from selfsup.parts.redundancy import coding_rate
from selfsup.parts.schedules import cosine
from selfsup.sections import Setup
from selfsup.views import Views


@final
class SimDINO(Method):
    """A teacher, the average of the student's past, sees large crops; features agree with its, and fill their space."""

    paper, family = "2502.10385", "distillation"
    evaluated = "teacher"
    packs = True
    teacher: Encoder

    class Hyper(Knobs):
        hidden: int = knob(2048, "hidden channels of the head", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the features", symbol="d", sweep=Choice(64, 128, 256), gt=0)
        expansion: float = knob(1.0, **distillation.EXPANSION)
        distortion: float = knob(0.05, **distillation.DISTORTION)
        momentum: float = knob(
            0.996, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.996, 0.999), ge=0, le=1
        )
        crop_min: float = knob(0.4, **multicrop.CROP_MIN)
        local_crops: int = knob(10, sweep=Choice(0, 2, 4, 6, 8, 10), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.4, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(1.0, "share of first views that are blurred", sweep=Choice(0.0, 1.0), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.dino(hyper))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk)
        initial.unit_residuals(trunk)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.backbone.position_offset = 0.1  # as DINO's
        self.head = gelu_mlp(self.backbone.dim, hyper.hidden, hyper.hidden, hyper.dim)
        self.teacher, self.teacher_head = ema_copy(self.backbone), ema_copy(self.head)

    def forward(self, batch: Batch) -> Out:
        shape = -1, len(batch.sample), self.hyper.dim
        students = unit(self.head(torch.cat(multicrop.pooled(self.backbone, batch.views)))).view(shape)
        with torch.no_grad():
            large = multicrop.pooled(self.teacher, batch.views[:2])
            targets = unit(self.teacher_head(torch.cat(large))).view(shape)
        error = crossed(students, targets)
        rate = coding_rate((students[:2] + targets) / 2, distortion=self.hyper.distortion)
        return Out(error - self.hyper.expansion * rate, {"error": error, "rate": rate})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_head, self.head, momentum)
