"""iBOT: DINO on images, and on masked patches, for which the EMA teacher is the tokenizer.

Zhou, Wei, Wang, Shen, Xie, Yuille and Kong, "iBOT: image BERT pre-training with online tokenizer", ICLR 2022,
arXiv:2111.07832. Defaults are the paper's for ViT-S/16 at 800 epochs of batch 1024, but for norm_last_layer, which is
the authors' for larger encoders.

Deviations from the authors' code: outputs of the head are computed in single precision, where its are in half
precision.

B: large views, two of each sample; N: tokens of one; M: covered ones of all; K: outputs.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BlockMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.clustering import swapped, usage
from selfsup.parts.distillation import centered, covered, masked_entropy, recenter
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import dino_head
from selfsup.parts.schedules import cosine
from selfsup.parts.tokens import Tokens, at
from selfsup.sections import Setup
from selfsup.views import Views


@final
class IBOT(Method):
    """The student sees large crops with patches covered, and small ones; the teacher sees large ones as they are."""

    paper, family, backbones = "2111.07832", "distillation", ("vit",)
    class_token = True
    evaluated = "teacher"
    packs = freezes = True
    initialize = staticmethod(initial.truncated_normal)
    teacher: TokenEncoder
    center: Tensor  # of what is said of images
    patch_center: Tensor
    temperature: Tensor  # the teacher's

    class Hyper(Knobs):
        outputs: int = knob(8192, "outputs of the head", symbol="K", sweep=Choice(1024, 4096, 8192, 16384), gt=1)
        hidden: int = knob(2048, "hidden channels of the head", sweep=Choice(512, 2048, 4096), gt=0)
        bottleneck: int = knob(256, "channels before the head's last layer", sweep=Choice(64, 128, 256), gt=0)
        norm_last_layer: bool = knob(True, "the rows of the head's last layer keep length 1", sweep=Choice(True, False))
        temperature: float = knob(0.1, **distillation.TEMPERATURE)
        teacher_temperature: float = knob(0.07, **distillation.TEACHER_TEMPERATURE)
        teacher_start: float = knob(0.04, **distillation.TEACHER_START)
        teacher_warmup: float = knob(0.0375, **distillation.TEACHER_WARMUP)
        center_momentum: float = knob(
            0.9, "of both centers", symbol="m", sweep=Choice(0.0, 0.9, 0.99, 0.999), ge=0, le=1
        )
        momentum: float = knob(
            0.996, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.996, 0.999), ge=0, le=1
        )
        freeze: float = knob(
            0.00125, "share of training before the last layer moves", sweep=Range(0.0, 0.05), ge=0, lt=1
        )
        image_weight: float = knob(1.0, "of the loss on images", symbol="λ₁", sweep=Choice(0.5, 1.0), ge=0)
        patch_weight: float = knob(
            1.0, "of the loss on covered patches", symbol="λ₂", sweep=Choice(0.0, 0.5, 1.0), ge=0
        )
        mask_share: float = knob(0.5, "share of large crops that are covered", sweep=Choice(0.25, 0.5, 1.0), ge=0, le=1)
        mask_min: float = knob(0.1, "least of them that is covered", symbol="r", sweep=Range(0.05, 0.4), ge=0, le=1)
        mask_max: float = knob(0.5, "most of them that is covered", symbol="r", sweep=Range(0.3, 0.8), gt=0, lt=1)
        crop_min: float = knob(0.25, **multicrop.CROP_MIN)
        local_crops: int = knob(10, sweep=Choice(0, 2, 4, 6, 8, 10), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.25, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(1.0, "share of first views that are blurred", sweep=Choice(0.0, 1.0), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.dino(hyper, BlockMask(hyper.mask_min, hyper.mask_max, hyper.mask_share)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.info = hyper, info
        # one head for images and patches (section 3.2)
        sizes = self.backbone.dim, hyper.hidden, hyper.bottleneck, hyper.outputs
        self.head = dino_head(*sizes, lengths=not hyper.norm_last_layer)
        self.mask_token = nn.Parameter(torch.zeros(1, self.backbone.dim))  # a matrix: it decays
        self.backbone.position_offset = 0.1  # as DINO's
        self.teacher, self.teacher_head = ema_copy(self.backbone), ema_copy(self.head)
        self.register_buffer("center", torch.zeros(hyper.outputs))
        self.register_buffer("patch_center", torch.zeros(hyper.outputs))
        self.register_buffer("temperature", torch.tensor(self._temperature(0)))

    def forward(self, batch: Batch) -> Out:
        large, small = multicrop.joined(batch.views[:2]), batch.views[2:]
        mask, places, weight = covered([view.mask for view in batch.views[:2]])
        image, patch = self._told(large)
        targets = centered(image, self.center, temperature=self.temperature)
        patch_targets = centered(at(patch, places), self.patch_center, temperature=self.temperature)
        hidden, images = multicrop.hidden(self.backbone, large, small, (mask, self.mask_token))
        students = self.head(images).view(len(batch.views), len(batch.sample), -1)
        patches = self.head(at(hidden[:, self.backbone.num_prefix :], places))
        on_images = swapped(students, targets.view(2, len(batch.sample), -1), temperature=self.hyper.temperature)
        on_patches = masked_entropy(patch_targets, patches, weight, temperature=self.hyper.temperature)
        return Out(
            self.hyper.image_weight * on_images + self.hyper.patch_weight * on_patches,
            {"images": on_images, "patches": on_patches, **usage(targets)},
            {"image": image.mean(dim=0, keepdim=True), "patch": patch.mean(dim=(0, 1))[None]},
        )

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        recenter(self.center, aux["image"], momentum=self.hyper.center_momentum)
        recenter(self.patch_center, aux["patch"], momentum=self.hyper.center_momentum)
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

    @torch.no_grad()
    def _told(self, large: Tokens | Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, K), (B, N, K): the teacher's, of all patches, because its center is their mean (algorithm 1)"""
        logits = self.teacher_head(self.teacher(large)).float()
        return logits[:, 0], logits[:, self.backbone.num_prefix :]
