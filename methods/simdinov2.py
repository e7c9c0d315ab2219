"""SimDINOv2: SimDINO on images, and features of covered patches that agree with the teacher's.

Wu, Zhang, Pai, Wang, Singh, Yang, Gao and Ma, "Simplifying DINO via coding rate regularization", ICML 2025,
arXiv:2502.10385. DINOv2 without prototypes, Sinkhorn's balance, temperatures and KoLeo, with one head for images and
patches. Defaults are the authors' configuration for ViT-L/16.

Deviations from the authors' code: the coding rate is of the samples of all workers, as with its reduce_cov; each large
crop is covered by chance, where it covers exactly half of a GPU's, by ratios that it spreads evenly.

B: large views, two of each sample; M: covered patches of all.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BlockMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.distillation import covered, crossed, unit
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import gelu_mlp
from selfsup.parts.redundancy import coding_rate
from selfsup.parts.schedules import cosine, layer_decay
from selfsup.parts.tokens import at
from selfsup.sections import Setup
from selfsup.views import Views


@final
class SimDINOv2(Method):
    """Features of crops and of covered patches agree with an EMA teacher's; those of images fill their space."""

    paper, family, backbones = "2502.10385", "distillation", ("vit",)
    class_token = True
    evaluated = "teacher"
    packs = True
    teacher: TokenEncoder

    class Hyper(Knobs):
        hidden: int = knob(2048, "hidden channels of the head", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(256, "channels of the features", symbol="d", sweep=Choice(64, 128, 256), gt=0)
        expansion: float = knob(1.0, **distillation.EXPANSION)
        distortion: float = knob(0.05, **distillation.DISTORTION)
        patch_weight: float = knob(1.0, "of the loss on covered patches", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        momentum: float = knob(
            0.9, "of the teacher at first", symbol="λ", sweep=Choice(0.9, 0.99, 0.994, 0.996), ge=0, le=1
        )
        layer_decay: float = knob(0.9, "of the learning rate from block to block", sweep=Range(0.6, 1.0), gt=0, le=1)
        embed_scale: float = knob(0.2, "times the learning rate, of the patch embedding", sweep=Choice(0.2, 1.0), gt=0)
        mask_share: float = knob(0.5, "share of large crops that are covered", sweep=Choice(0.25, 0.5, 1.0), ge=0, le=1)
        mask_min: float = knob(0.1, "least of them that is covered", sweep=Range(0.05, 0.4), ge=0, le=1)
        mask_max: float = knob(0.5, "most of them that is covered", sweep=Range(0.3, 0.8), gt=0, lt=1)
        crop_min: float = knob(0.4, **multicrop.CROP_MIN)
        local_crops: int = knob(10, sweep=Choice(0, 2, 4, 6, 8, 10), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.4, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(1.0, "share of first views that are blurred", sweep=Choice(0.0, 1.0), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.dino(hyper, BlockMask(hyper.mask_min, hyper.mask_max, hyper.mask_share, smallest=4)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk, tokens=1e-6)
        initial.scaled_branches(trunk, 0.1)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        initial.even_drop_path(self.backbone.trunk)
        self.head = gelu_mlp(self.backbone.dim, hyper.hidden, hyper.hidden, hyper.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, self.backbone.dim))  # a matrix: it decays
        self.backbone.position_offset = 0.1  # as DINO's
        self.teacher, self.teacher_head = ema_copy(self.backbone), ema_copy(self.head)

    def forward(self, batch: Batch) -> Out:
        large, small = multicrop.joined(batch.views[:2]), batch.views[2:]
        mask, places, weight = covered([view.mask for view in batch.views[:2]])
        shape = -1, len(batch.sample), self.hyper.dim
        with torch.no_grad():
            seen = self.teacher(large)
            targets = unit(self.teacher_head(seen[:, 0])).view(shape)
            patch_targets = unit(self.teacher_head(at(seen[:, self.backbone.num_prefix :], places)))
        hidden, images = multicrop.hidden(self.backbone, large, small, (mask, self.mask_token))
        students = unit(self.head(images)).view(shape)
        patches = unit(self.head(at(hidden[:, self.backbone.num_prefix :], places)))
        error, patch_error = crossed(students, targets), (weight * (1 - (patches * patch_targets).sum(dim=1))).sum()
        rate = coding_rate((students[:2] + targets) / 2, distortion=self.hyper.distortion)
        loss = error + self.hyper.patch_weight * patch_error - self.hyper.expansion * rate
        return Out(loss, {"error": error, "patches": patch_error, "rate": rate})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_head, self.head, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        if name.startswith("head."):  # clipped by itself, as the authors' code does
            return ParamOptions(clip_group="head")
        name = name.replace("mask_token", ".trunk.mask_token")  # the encoder's first, like its class token
        scale = layer_decay(name, len(self.backbone.trunk.blocks), self.hyper.layer_decay)
        return ParamOptions(lr_scale=scale * (self.hyper.embed_scale if "patch_embed" in name else 1.0))
