"""DINOv3: DINOv2 with rotary positions, and patches that stay as alike as they were at an earlier stage of training.

Siméoni, Vo, Seitzer, Baldassarre, Oquab, Jose, Khalidov, Szafraniec, Yi, Ramamonjisoa, Massa, Haziza, Wehrstedt, Wang,
Darcet, Moutakanni, Sentana, Roberts, Vedaldi, Tolan, Brandt, Couprie, Mairal, Jégou, Labatut and Bojanowski, "DINOv3",
2025, arXiv:2508.10104. With `gram_size`, it is the second stage: it goes on where the spec's `teacher`, an earlier one,
ended, and anchors the Gram matrices of patches at those of that one, the Gram teacher, at a resolution of its own.
Schedules are constant, as the paper's; sizes are those of the authors' recipe for ViT-L/16 on ImageNet-1k. Rotary
positions and four registers come with a backbone: vit_large_patch16_dinov3_qkvb.

Deviations from the authors' code: each large crop is covered by chance, where it covers exactly half of a GPU's, by
ratios that it spreads evenly, and drop-path leaves out samples by chance, there a fixed number of them. timm's ViTs
have no bias of keys. Of the 7B, there coordinates are rescaled in training, small crops' class tokens have a norm of
their own, and heads have sizes of their own. In the second stage the weight of Gram matrices is whole from the first
step, there after a thousand of 200,000, and small crops keep theirs, which falls to a half there; the covering token
goes on as the student's.

B: large views, two of each sample; N: tokens of one; M: covered ones of all; K: outputs.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BlockMask
from selfsup.method import Batch, Lesson, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.clustering import swapped, usage
from selfsup.parts.distillation import covered, gram_error, koleo, masked_entropy
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import dinov3_head
from selfsup.parts.schedules import cosine, layer_decay
from selfsup.parts.sinkhorn import sinkhorn
from selfsup.parts.tokens import Tokens, at
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class DINOv3(Method):
    """Students of covered and small crops learn what a balanced teacher says; patches keep their likeness to others."""

    paper, family, backbones = "2508.10104", "distillation", ("vit",)
    class_token = True
    evaluated = "teacher"
    packs = freezes = True
    learns_from = "features"  # of an earlier stage, where Gram matrices are anchored
    initialize = staticmethod(initial.truncated_normal)
    teacher: TokenEncoder
    gram_teacher: TokenEncoder | None
    heads: Any  # of images, of patches
    temperature: Tensor  # the teacher's

    class Hyper(Knobs):
        gram_size: int | None = knob(
            None, "pixels a side of the large crops that an earlier stage sees, the Gram teacher; null: none does", gt=0
        )
        gram_weight: float = knob(2.0, "of the Gram matrices' error", symbol="w", sweep=Range(0.5, 4.0, log=True), ge=0)
        renewals: int = knob(3, "times that the Gram teacher becomes what the teacher is", sweep=Choice(0, 1, 3), ge=0)
        renewed_every: float = knob(0.05, "share of training between them", sweep=Choice(0.05, 0.1), gt=0, le=1)
        outputs: int = knob(65536, "outputs of each head", symbol="K", sweep=Choice(4096, 16384, 65536, 131072), gt=1)
        hidden: int = knob(2048, "hidden channels of the heads", sweep=Choice(512, 2048, 4096), gt=0)
        bottleneck: int = knob(256, "channels before a head's last layer", sweep=Choice(128, 256, 384), gt=0)
        temperature: float = knob(0.1, **distillation.TEMPERATURE)
        teacher_temperature: float = knob(0.07, **distillation.TEACHER_TEMPERATURE)
        teacher_start: float = knob(0.04, **distillation.TEACHER_START)
        teacher_warmup: float = knob(0.1, **distillation.TEACHER_WARMUP)
        iterations: int = knob(3, "Sinkhorn's rounds", sweep=Choice(1, 3, 10), ge=1, le=1000)
        momentum: float = knob(
            0.994, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.994, 0.999), ge=0, le=1
        )
        momentum_end: float = knob(0.994, "of the teacher in the end", sweep=Choice(0.994, 0.999, 1.0), ge=0, le=1)
        freeze: float = knob(0.005, "share of training before last layers move", sweep=Range(0.0, 0.05), ge=0, lt=1)
        patch_weight: float = knob(1.0, "of the loss on covered patches", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        koleo_weight: float = knob(0.1, "of the spread of samples", sweep=Choice(0.0, 0.1, 0.5), ge=0)
        koleo_split: int = knob(1, "groups of samples, each of which is spread by itself", ge=1)
        layer_decay: float = knob(0.98, "of the learning rate from block to block", sweep=Range(0.6, 1.0), gt=0, le=1)
        embed_scale: float = knob(0.2, "times the learning rate, of the patch embedding", sweep=Choice(0.2, 1.0), gt=0)
        mask_share: float = knob(0.5, "share of large crops that are covered", sweep=Choice(0.25, 0.5, 1.0), ge=0, le=1)
        mask_min: float = knob(0.1, "least of them that is covered", sweep=Range(0.05, 0.4), ge=0, le=1)
        mask_max: float = knob(0.5, "most of them that is covered", sweep=Range(0.3, 0.8), gt=0, lt=1)
        crop_min: float = knob(0.32, **multicrop.CROP_MIN)
        local_crops: int = knob(8, sweep=Choice(0, 2, 4, 6, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.32, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(1.0, "share of first views that are blurred", sweep=Choice(0.0, 1.0), ge=0, le=1)
        blur_inverted: bool = knob(False, "views are blurred in one less those shares, as in the authors' code")

    @classmethod
    def lesson(cls, hyper: Hyper) -> Lesson | None:
        return cls.learns_from if hyper.gram_size else None

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        mask = BlockMask(hyper.mask_min, hyper.mask_max, hyper.mask_share, smallest=4)
        crops = recipes.dino(hyper, mask)
        large = [0, 1] if hyper.gram_size else []
        plain = [Crop(size=hyper.gram_size, scale=(hyper.crop_min, 1.0), of=number) for number in large]
        return Views((*(recipes.inverted(crops) if hyper.blur_inverted else crops), *plain))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.whole_groups("koleo_split", hyper.koleo_split, setup.train.batch)
        if hyper.gram_size:
            yield from checks.whole_pieces(setup.backbone, gram_size=hyper.gram_size)
        if info and info.teacher:
            knobs = "outputs", "hidden", "bottleneck"
            yield from checks.earlier_stage(cls, info.teacher, hyper, knobs, setup, info.channels)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.num_steps = hyper, info.num_steps
        initial.even_drop_path(self.backbone.trunk)
        sizes = self.backbone.dim, hyper.hidden, hyper.bottleneck, hyper.outputs
        self.heads = nn.ModuleList(dinov3_head(*sizes) for _ in range(2))
        self.mask_token = nn.Parameter(torch.zeros(1, self.backbone.dim))  # a matrix: it decays
        if hyper.gram_size:
            assert info.teacher, "it goes on from an earlier stage"
            self._go_on_from(info.teacher.method)
        self.teacher, self.teacher_heads = ema_copy(self.backbone), ema_copy(self.heads)
        self.gram_teacher = ema_copy(self.teacher) if hyper.gram_size else None
        self.register_buffer("temperature", torch.tensor(distillation.teacher_temperature(0.0, hyper)))

    def forward(self, batch: Batch) -> Out:
        number = 2 + self.hyper.local_crops
        large, small, plain = multicrop.joined(batch.views[:2]), batch.views[2:number], batch.views[number:]
        assert isinstance(large, Tokens), "a ViT sees tokens, not images"
        mask, places, weight = covered([view.mask for view in batch.views[:2]])
        targets, patch_targets = self._targets(large, places, valid=weight > 0)
        hidden, images = multicrop.hidden(self.backbone, large, small, (mask, self.mask_token))
        patches = hidden[:, self.backbone.num_prefix :]
        students = self.heads[0](images).view(number, len(batch.sample), -1)
        on_images = swapped(students, targets.view(2, len(batch.sample), -1), temperature=self.hyper.temperature)
        outputs = self.heads[1](at(patches, places))
        on_patches = masked_entropy(patch_targets, outputs, weight, temperature=self.hyper.temperature)
        spread = torch.stack([koleo(crop, split=self.hyper.koleo_split) for crop in hidden[:, 0].chunk(2)]).sum()
        loss = on_images + self.hyper.patch_weight * on_patches + self.hyper.koleo_weight * spread
        log = {"images": on_images, "patches": on_patches, "koleo": spread, **usage(targets)}
        if plain:
            log["gram"] = gram_error(patches, self._anchors(multicrop.joined(plain), large.grid))
            loss = loss + self.hyper.gram_weight * log["gram"]
        return Out(loss, log)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.temperature.fill_(distillation.teacher_temperature(t + 1 / self.num_steps, self.hyper))
        momentum = cosine(t, self.hyper.momentum, self.hyper.momentum_end)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_heads, self.heads, momentum)
        done, every = round(t * self.num_steps) + 1, max(1, round(self.hyper.renewed_every * self.num_steps))
        if self.gram_teacher is not None and done % every == 0 and done <= every * self.hyper.renewals:
            ema_update(self.gram_teacher, self.teacher, 0.0)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:
        if name.startswith("heads."):
            last = any(weight is head[-1].weight for head in self.heads)
            head = name.rsplit(".", 2)[0]  # each is clipped by itself, as the authors' code does
            return ParamOptions(frozen_until=self.hyper.freeze if last else 0.0, clip_group=head)
        name = name.replace("mask_token", ".trunk.mask_token")  # the encoder's first, like its class token
        scale = layer_decay(name, len(self.backbone.trunk.blocks), self.hyper.layer_decay)
        return ParamOptions(lr_scale=scale * (self.hyper.embed_scale if "patch_embed" in name else 1.0))

    def _go_on_from(self, earlier: Any) -> None:
        """Begin student and heads, and so their teachers, with an earlier stage's teachers."""
        self.backbone.load_state_dict(earlier.teacher.state_dict())
        self.heads.load_state_dict(earlier.teacher_heads.state_dict())
        self.mask_token.data.copy_(earlier.mask_token)

    @torch.no_grad()
    def _targets(self, large: Tokens | Tensor, places: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, K), (M, K): of large views and of covered patches, each balanced among all"""
        hidden = self.teacher(large)
        image = self.teacher_heads[0](hidden[:, 0])
        patch = self.teacher_heads[1](at(hidden[:, self.backbone.num_prefix :], places))
        balanced = partial(sinkhorn, epsilon=self.temperature, iterations=self.hyper.iterations)
        return balanced(image), balanced(patch, valid=valid)

    @torch.no_grad()
    def _anchors(self, plain: Tokens | Tensor, grid: tuple[int, ...]) -> Tensor:
        """-> (B, N, D): the Gram teacher's patches of undistorted crops, resampled to the student's grid"""
        assert self.gram_teacher is not None
        places = self.gram_teacher.spatial(plain).float()
        if places.shape[2:] != grid:
            places = F.interpolate(places, size=grid, mode="bicubic")
        return places.flatten(2).mT
