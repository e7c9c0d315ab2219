"""DropPos: a ViT sees some patches without their positions, and classifies where each of them belongs.

Wang, Fan, Wang, Song, Wang and Zhang, "DropPos: pre-training vision transformers by reconstructing dropped positions",
NeurIPS 2023, arXiv:2309.03576. Defaults are the paper's for ViT-B/16.

Deviations from the authors' code: the smooth label of a place sums to 1, as in the paper, where there the label of each
other place is divided by the sum of that place's own.

B: batch, N: tokens, K: visible ones, M: those of them without a position, D: channels.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, dist
from selfsup.parts.heads import xavier_linears
from selfsup.parts.tokens import Tokens, places
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class DropPos(Method):
    """Places of patches are told by what they show, and by the few patches whose places are known."""

    paper, family, backbones = "2309.03576", "pretext", ("vit",)
    class_token = True
    apart: Tensor  # squared distances of places
    sigma: Tensor  # of the smooth labels, in patches

    class Hyper(Knobs):
        mask_ratio: float = knob(0.75, "share of patches hidden from the encoder", sweep=Range(0.25, 0.9), gt=0, lt=1)
        drop_ratio: float = knob(
            0.75, "share of visible patches without a position", symbol="γ", sweep=Range(0.25, 1.0), gt=0, le=1
        )
        smoothing: float = knob(
            1.0,
            "width of a place's label at first, in patches; it shrinks to 0",
            symbol="σ",
            sweep=Choice(0.0, 1.0, 2.0),
            ge=0,
        )
        attentive: bool = knob(
            True, "patches count by their likeness to the class token of the whole image", sweep=Choice(True, False)
        )
        temperature: float = knob(0.1, "of that likeness", symbol="τ", sweep=Choice(0.1, 0.5, 1.0), gt=0)
        decoder_width: int = knob(512, "channels of the decoder", sweep=Choice(128, 256, 512), gt=0)
        decoder_depth: int = knob(2, "transformer blocks of the decoder", sweep=Choice(1, 2, 8), ge=1, le=1000)
        decoder_heads: int = knob(16, "attention heads of the decoder", gt=0)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=RandomMask(hyper.mask_ratio)),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        yield from checks.added_positions(setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.info = hyper, info
        place = places(self.backbone.grid)
        self.decoder = nn.Sequential(
            nn.Linear(self.backbone.dim, hyper.decoder_width),
            *(Block(hyper.decoder_width, hyper.decoder_heads, qkv_bias=True) for _ in range(hyper.decoder_depth)),
            nn.LayerNorm(hyper.decoder_width, eps=1e-6),
            nn.Linear(hyper.decoder_width, len(place)),
        )
        xavier_linears(self.decoder)
        self.no_position = nn.Parameter(torch.empty(1, self.backbone.dim))  # a matrix: it decays, as theirs
        nn.init.normal_(self.no_position, std=0.02)
        self.register_buffer("apart", torch.cdist(place.float(), place.float()).square(), persistent=False)
        self.register_buffer("sigma", torch.tensor(hyper.smoothing))

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        assert isinstance(view.mask, IndexMask)
        keep = view.mask.keep
        known = int(keep.shape[1] * (1 - self.hyper.drop_ratio))  # of a random order: RandomMask's is that of its noise
        dropped = (torch.arange(keep.shape[1], device=keep.device) >= known)[:, None]

        def placed(patches: Tensor, positions: Tensor | float) -> Tensor:
            return patches + torch.where(dropped, self.no_position, torch.as_tensor(positions))

        hidden = self.backbone(view.value, keep, join=placed)
        logits = self.decoder(hidden)[:, self.backbone.num_prefix + known :].float()
        truth = keep[:, known:]
        weight = self._likeness(view.value, keep)[:, known:]
        error = -(self._labels()[truth] * F.log_softmax(logits, dim=2)).sum(dim=2)
        total = dist.mean(weight.sum())
        hits = (logits.argmax(dim=2) == truth) * weight
        return Out((error * weight).sum() / total, {"accuracy": hits.sum() / total})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        epoch = (round(t * self.info.num_steps) + 1) // self.info.steps_per_epoch  # labels narrow epoch by epoch
        left = 1 - epoch * self.info.steps_per_epoch / self.info.num_steps
        self.sigma.fill_(self.hyper.smoothing * max(left, 0.0))

    def _labels(self) -> Tensor:
        """-> (N, N): of each place the label, which sums to 1 over all places (eq. 5)"""
        return F.softmax(-self.apart / self.sigma.square().clamp_min(1e-12), dim=1)

    @torch.no_grad()
    def _likeness(self, tokens: Tokens, keep: Tensor) -> Tensor:
        """-> (B, K): the weights of visible patches, which sum to 1 (eq. 6)"""
        if not self.hyper.attentive:
            return torch.full(keep.shape, 1 / keep.shape[1], device=keep.device)
        whole = self.backbone(tokens).float()
        alike = F.cosine_similarity(whole[:, :1], whole[:, self.backbone.num_prefix :], dim=2)
        weight = F.softmax(alike / self.hyper.temperature, dim=1).take_along_dim(keep, dim=1)
        return weight / weight.sum(dim=1, keepdim=True)
