"""DINO: the student matches an EMA teacher's output across global and local crops.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski and Joulin, "Emerging properties in self-supervised vision
transformers", ICCV 2021, arXiv:2104.14294. Defaults are the paper's for ViT-S/16 at 800 epochs of batch 1024, but for
norm_last_layer, which is the authors' for all larger encoders and for short trainings.

Deviations from the authors' code: outputs of the head are computed in single precision, where its are in half
precision.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.clustering import swapped, usage
from selfsup.parts.distillation import centered, recenter
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import dino_head
from selfsup.parts.schedules import cosine
from selfsup.parts.sinkhorn import sinkhorn
from selfsup.sections import Setup
from selfsup.views import Views


@final
class DINO(Method):
    """A teacher, the average of the student's past, sees large crops; the student tells its output from all others."""

    paper, family = "2104.14294", "distillation"
    least_batch = 128  # table 9
    evaluated = "teacher"  # better than the student, section 5.2
    packs = freezes = True
    teacher: Encoder
    center: Tensor
    temperature: Tensor  # the teacher's

    class Hyper(Knobs):
        outputs: int = knob(65536, "outputs of the head", symbol="K", sweep=Choice(1024, 4096, 16384, 65536), gt=1)
        hidden: int = knob(2048, "hidden channels of the head", sweep=Choice(512, 2048, 4096), gt=0)
        bottleneck: int = knob(256, "channels before the head's last layer", sweep=Choice(64, 128, 256), gt=0)
        norm_last_layer: bool = knob(True, "the rows of the head's last layer keep length 1", sweep=Choice(True, False))
        norm: bool = knob(False, "the head's hidden channels are batch-normalized", sweep=Choice(False, True))
        temperature: float = knob(0.1, **distillation.TEMPERATURE)
        teacher_temperature: float = knob(0.07, **distillation.TEACHER_TEMPERATURE)
        teacher_start: float = knob(0.04, **distillation.TEACHER_START)
        teacher_warmup: float = knob(0.0375, **distillation.TEACHER_WARMUP)
        balance: Literal["center", "sinkhorn"] = knob(
            "center", "what keeps the teacher from one output for all", sweep=Choice("center", "sinkhorn")
        )
        center_momentum: float = knob(0.9, "of the center", symbol="m", sweep=Choice(0.0, 0.9, 0.99, 0.999), ge=0, le=1)
        momentum: float = knob(
            0.996, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.996, 0.999), ge=0, le=1
        )
        freeze: float = knob(
            0.00125, "share of training before the last layer moves", sweep=Range(0.0, 0.05), ge=0, lt=1
        )
        crop_min: float = knob(0.25, **multicrop.CROP_MIN)
        local_crops: int = knob(10, sweep=Choice(0, 2, 4, 6, 8, 10), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.25, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
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
        self.hyper, self.info = hyper, info
        self.backbone.position_offset = 0.1  # what the authors' code adds to the sides of small crops
        sizes = self.backbone.dim, hyper.hidden, hyper.bottleneck, hyper.outputs
        self.head = dino_head(*sizes, norm=hyper.norm, lengths=not hyper.norm_last_layer)
        self.teacher, self.teacher_head = ema_copy(self.backbone), ema_copy(self.head)
        self.register_buffer("center", torch.zeros(hyper.outputs))
        self.register_buffer("temperature", torch.tensor(self._temperature(0)))

    def forward(self, batch: Batch) -> Out:
        students = self.head(torch.cat(multicrop.pooled(self.backbone, batch.views)))
        with torch.no_grad():
            logits: Tensor = self.teacher_head(torch.cat(multicrop.pooled(self.teacher, batch.views[:2]))).float()
            targets = self._balanced(logits)
        shape = -1, len(batch.sample), self.hyper.outputs
        loss = swapped(students.view(shape), targets.view(shape), temperature=self.hyper.temperature)  # eq. 3
        return Out(loss, usage(targets), {"logits": logits.mean(dim=0, keepdim=True)})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        recenter(self.center, aux["logits"], momentum=self.hyper.center_momentum)
        self.temperature.fill_(self._temperature(round(t * self.info.num_steps) + 1))
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_head, self.head, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        last = any(weight is own for own in self.head[-1].parameters())
        return ParamOptions(frozen_until=self.hyper.freeze if last else 0.0)

    def _temperature(self, step: int) -> float:
        sizes = {"steps": self.info.num_steps, "steps_per_epoch": self.info.steps_per_epoch}
        return distillation.teacher_temperature_by_epoch(step, self.hyper, **sizes)

    def _balanced(self, logits: Tensor) -> Tensor:
        """(N, K) -> (N, K)"""
        if self.hyper.balance == "sinkhorn":
            return sinkhorn(logits, epsilon=self.temperature, iterations=3)
        return centered(logits, self.center, temperature=self.temperature)
