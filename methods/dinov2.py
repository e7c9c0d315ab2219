"""DINOv2: DINO on images, iBOT on masked patches and KoLeo to spread features, made fast and stable at scale.

Oquab, Darcet, Moutakanni, Vo, Szafraniec, Khalidov, Fernandez, Haziza, Massa, El-Nouby, Assran, Ballas, Galuba, Howes,
Huang, Li, Misra, Rabbat, Sharma, Synnaeve, Xu, Jégou, Mairal, Labatut, Joulin and Bojanowski, "DINOv2: learning robust
visual features without supervision", TMLR 2024, arXiv:2304.07193. Defaults are the paper's, sections 4 and B.1, in the
size of the authors' recipe for ViT-L/16 on ImageNet-1k. Registers come with a backbone: vit_small_patch14_reg4_dinov2.

B: large views, two of each sample; N: tokens of one; M: covered ones of all; K: outputs.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BlockMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, multicrop, recipes
from selfsup.parts.clustering import swapped, usage
from selfsup.parts.distillation import covered, koleo, masked_entropy
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import Prototypes, dino_head
from selfsup.parts.schedules import cosine, layer_decay
from selfsup.parts.sinkhorn import sinkhorn
from selfsup.parts.tokens import Tokens, at
from selfsup.sections import Setup
from selfsup.views import Views


@final
class DINOv2(Method):
    """Students of covered and small crops learn what a teacher, balanced by Sinkhorn, says of images and patches."""

    paper, family, backbones = "2304.07193", "distillation", ("vit",)
    class_token = True
    evaluated = "teacher"
    teacher: TokenEncoder
    temperature: Tensor  # the teacher's

    class Hyper(Knobs):
        outputs: int = knob(65536, "outputs of each head", symbol="K", sweep=Choice(4096, 16384, 65536, 131072), gt=1)
        hidden: int = knob(2048, "hidden channels of the heads", sweep=Choice(512, 2048, 4096), gt=0)
        bottleneck: int = knob(256, "channels before a head's last layer", sweep=Choice(128, 256, 384), gt=0)
        shared_head: bool = knob(False, "one head for images and patches, as iBOT's", sweep=Choice(False, True))
        temperature: float = knob(0.1, **distillation.TEMPERATURE)
        teacher_temperature: float = knob(0.07, **distillation.TEACHER_TEMPERATURE)
        teacher_start: float = knob(0.04, **distillation.TEACHER_START)
        teacher_warmup: float = knob(0.3, **distillation.TEACHER_WARMUP)
        iterations: int = knob(3, "Sinkhorn's rounds", sweep=Choice(1, 3, 10), ge=1, le=1000)
        momentum: float = knob(
            0.994, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.994, 0.996), ge=0, le=1
        )
        freeze: float = knob(0.01, "share of training before last layers move", sweep=Range(0.0, 0.05), ge=0, lt=1)
        patch_weight: float = knob(1.0, "of the loss on covered patches", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        koleo_weight: float = knob(0.1, "of the spread of samples", sweep=Choice(0.0, 0.1, 0.5), ge=0)
        koleo_split: int = knob(1, "groups of samples, each of which is spread by itself", ge=1)
        layer_decay: float = knob(0.9, "of the learning rate from block to block", sweep=Range(0.6, 1.0), gt=0, le=1)
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

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        # each crop is covered by chance; the authors' code covers exactly half of a GPU's, by ratios spread evenly
        return Views(recipes.dino(hyper, BlockMask(hyper.mask_min, hyper.mask_max, hyper.mask_share, smallest=4)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.whole_groups("koleo_split", hyper.koleo_split, setup.train.batch)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.info = hyper, info
        sizes = self.backbone.dim, hyper.hidden, hyper.bottleneck, hyper.outputs
        heads = [dino_head(*sizes) for _ in range(1 if hyper.shared_head else 2)]
        self.heads = nn.ModuleList(heads)  # of images, of patches
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        self.teacher, self.teacher_heads = ema_copy(self.backbone), ema_copy(self.heads)
        self.register_buffer("temperature", torch.tensor(distillation.teacher_temperature(0.0, hyper)))

    def forward(self, batch: Batch) -> Out:
        large, small = multicrop.joined(batch.views[:2]), batch.views[2:]
        mask, places, weight = covered([view.mask for view in batch.views[:2]])
        targets, patch_targets = self._targets(large, places, weight)
        hidden = self.backbone(large, cover=(mask, self.mask_token))
        images = torch.cat([hidden[:, 0], *([self.backbone(multicrop.joined(small))[:, 0]] if small else [])])
        students = self.heads[0](images).view(len(batch.views), len(batch.sample), -1)
        patches = self.heads[-1](at(hidden[:, self.backbone.num_prefix :], places))
        on_images = swapped(students, targets.view(2, len(batch.sample), -1), temperature=self.hyper.temperature)
        on_patches = masked_entropy(patch_targets, patches, weight, temperature=self.hyper.temperature)
        first = hidden[: len(batch.sample), 0]  # the first large crop; the authors' code takes the second, too
        spread = koleo(first, split=self.hyper.koleo_split)
        return Out(
            on_images + self.hyper.patch_weight * on_patches + self.hyper.koleo_weight * spread,
            {"images": on_images, "patches": on_patches, "koleo": spread, **usage(targets)},
        )

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        next_t = t + 1 / self.info.num_steps
        self.temperature.fill_(distillation.teacher_temperature(next_t, self.hyper))
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_heads, self.heads, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:
        if any(weight is module.weight for module in self.heads.modules() if isinstance(module, Prototypes)):
            return ParamOptions(frozen_until=self.hyper.freeze)
        name = name.replace("mask_token", ".trunk.mask_token")  # the encoder's first, like its class token
        scale = layer_decay(name, len(self.backbone.trunk.blocks), self.hyper.layer_decay)
        return ParamOptions(lr_scale=scale * (self.hyper.embed_scale if "patch_embed" in name else 1.0))

    @torch.no_grad()
    def _targets(self, large: Tokens | Tensor, places: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, K), (M, K): of both large views together, and of all covered patches together"""
        hidden = self.teacher(large)
        images = self.teacher_heads[0](hidden[:, 0])
        patches = self.teacher_heads[-1](at(hidden[:, self.backbone.num_prefix :], places))
        balanced = partial(sinkhorn, epsilon=self.temperature, iterations=self.hyper.iterations)
        return balanced(images), balanced(patches, valid=weight > 0)
