"""DINOv2: DINO on images, iBOT on masked patches and KoLeo to spread features, made fast and stable at scale.

Oquab, Darcet, Moutakanni, Vo, Szafraniec, Khalidov, Fernandez, Haziza, Massa, El-Nouby, Assran, Ballas, Galuba, Howes,
Huang, Li, Misra, Rabbat, Sharma, Synnaeve, Xu, Jégou, Mairal, Labatut, Joulin and Bojanowski, "DINOv2: learning robust
visual features without supervision", TMLR 2024, arXiv:2304.07193. Defaults are the paper's, sections 4 and B.1, in the
size of the authors' recipe for ViT-L/16 on ImageNet-1k. Registers come with a backbone: vit_small_patch14_reg4_dinov2.
In that recipe the authors' code centers (balance) and spreads both large crops (koleo_crops), unlike the paper; and its
shares of blurred views are those that DINO leaves as they are (blur_inverted): none of first ones, 0.9 of second ones.

Deviations from the authors' code: each large crop is covered by chance, where it covers exactly half of a GPU's, by
ratios that it spreads evenly, and drop-path leaves out samples by chance, there a fixed number of them. The optimizer's
moments of last layers begin when these move, there with the first step. Its blur ends at 4 pixels on either side.

B: large views, two of each sample; N: tokens of one; M: covered ones of all; K: outputs.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BlockMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, distillation, initial, multicrop, recipes
from selfsup.parts.clustering import swapped, usage
from selfsup.parts.distillation import centered, covered, koleo, masked_entropy, recenter, recenter_by_sums
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import dino_head
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
    packs = freezes = True
    teacher: TokenEncoder
    heads: Any  # of images, of patches
    center: Tensor  # of what is said of images
    patch_center: Tensor
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
        balance: Literal["sinkhorn", "center"] = knob(
            "sinkhorn", "what keeps the teacher from one output for all", sweep=Choice("sinkhorn", "center")
        )
        center_momentum: float = knob(0.9, "of both centers", symbol="m", sweep=Choice(0.0, 0.9, 0.99), ge=0, le=1)
        iterations: int = knob(3, "Sinkhorn's rounds", sweep=Choice(1, 3, 10), ge=1, le=1000)
        momentum: float = knob(
            0.994, "of the teacher at first", symbol="λ", sweep=Choice(0.99, 0.994, 0.996), ge=0, le=1
        )
        freeze: float = knob(0.01, "share of training before last layers move", sweep=Range(0.0, 0.05), ge=0, lt=1)
        patch_weight: float = knob(1.0, "of the loss on covered patches", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        koleo_weight: float = knob(0.1, "of the spread of samples", sweep=Choice(0.0, 0.1, 0.5), ge=0)
        koleo_crops: int = knob(1, "large crops of a sample that are spread", sweep=Choice(1, 2), ge=1, le=2)
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
        blur_inverted: bool = knob(False, "views are blurred in one less those shares, as in the authors' code")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crops = recipes.dino(hyper, BlockMask(hyper.mask_min, hyper.mask_max, hyper.mask_share, smallest=4))
        return Views(recipes.inverted(crops) if hyper.blur_inverted else crops)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.whole_groups("koleo_split", hyper.koleo_split, setup.train.batch)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk, tokens=1e-6)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.info = hyper, info
        initial.even_drop_path(self.backbone.trunk)
        sizes = self.backbone.dim, hyper.hidden, hyper.bottleneck, hyper.outputs
        heads = [dino_head(*sizes, lengths=True) for _ in range(1 if hyper.shared_head else 2)]
        self.heads = nn.ModuleList(heads)
        self.mask_token = nn.Parameter(torch.zeros(1, self.backbone.dim))  # a matrix: it decays
        self.backbone.position_offset = 0.1  # as DINO's
        self.teacher, self.teacher_heads = ema_copy(self.backbone), ema_copy(self.heads)
        self.register_buffer("center", torch.zeros(hyper.outputs))
        self.register_buffer("patch_center", torch.zeros(hyper.outputs))
        self.register_buffer("temperature", torch.tensor(distillation.teacher_temperature(0.0, hyper)))

    def forward(self, batch: Batch) -> Out:
        large, small = multicrop.joined(batch.views[:2]), batch.views[2:]
        mask, places, weight = covered([view.mask for view in batch.views[:2]])
        image, patch = self._told(large, places)
        targets = self._balanced(image, self.center)
        patch_targets = self._balanced(patch, self.patch_center, valid=weight > 0)
        hidden, images = multicrop.hidden(self.backbone, large, small, (mask, self.mask_token))
        students = self.heads[0](images).view(len(batch.views), len(batch.sample), -1)
        patches = self.heads[-1](at(hidden[:, self.backbone.num_prefix :], places))
        on_images = swapped(students, targets.view(2, len(batch.sample), -1), temperature=self.hyper.temperature)
        on_patches = masked_entropy(patch_targets, patches, weight, temperature=self.hyper.temperature)
        crops = hidden[:, 0].chunk(2)[: self.hyper.koleo_crops]
        spread = torch.stack([koleo(crop, split=self.hyper.koleo_split) for crop in crops]).sum()
        return Out(
            on_images + self.hyper.patch_weight * on_patches + self.hyper.koleo_weight * spread,
            {"images": on_images, "patches": on_patches, "koleo": spread, **usage(targets)},
            self._sums(image, patch, weight > 0) if self.hyper.balance == "center" else {},
        )

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        if aux:
            recenter(self.center, aux["image"], momentum=self.hyper.center_momentum)
            recenter_by_sums(self.patch_center, aux["patch"], aux["number"], momentum=self.hyper.center_momentum)
        next_t = t + 1 / self.info.num_steps
        self.temperature.fill_(distillation.teacher_temperature(next_t, self.hyper))
        momentum = cosine(t, self.hyper.momentum, 1.0)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_heads, self.heads, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:
        if name.startswith("heads."):
            last = any(weight is own for head in self.heads for own in head[-1].parameters())
            head = name.rsplit(".", 2)[0]  # each is clipped by itself, as the authors' code does
            return ParamOptions(frozen_until=self.hyper.freeze if last else 0.0, clip_group=head)
        name = name.replace("mask_token", ".trunk.mask_token")  # the encoder's first, like its class token
        scale = layer_decay(name, len(self.backbone.trunk.blocks), self.hyper.layer_decay)
        return ParamOptions(lr_scale=scale * (self.hyper.embed_scale if "patch_embed" in name else 1.0))

    @torch.no_grad()
    def _told(self, large: Tokens | Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, K), (M, K): the teacher's, of large views and of covered patches"""
        hidden = self.teacher(large)
        patches = at(hidden[:, self.backbone.num_prefix :], places)
        return self.teacher_heads[0](hidden[:, 0]), self.teacher_heads[-1](patches)

    def _balanced(self, logits: Tensor, center: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, K), (K,), (N,) -> (N, K): among all views, or all covered patches, together"""
        if self.hyper.balance == "sinkhorn":
            return sinkhorn(logits, epsilon=self.temperature, iterations=self.hyper.iterations, valid=valid)
        return centered(logits, center, temperature=self.temperature)

    @staticmethod
    def _sums(image: Tensor, patch: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """(B, K), (M, K), (M,) -> what the centers move by: a mean; a sum and its number, as workers' numbers differ"""
        return {
            "image": image.mean(dim=0, keepdim=True),
            "patch": (patch * valid[:, None]).sum(dim=0, keepdim=True),
            "number": valid.sum(dim=0, keepdim=True),
        }
