"""Selfie: an encoder of pieces chooses, among those missing from an image, the one that fits each gap.

Trinh, Luong and Le, "Selfie: Self-supervised pretraining for image embedding", 2019, arXiv:1906.02940. A piece is 32 of
224 pixels a side, as the paper's; the rest of the defaults, and the recipe, are from memory.

There is no authors' code. The encoder's pooled features stand for the first three blocks of their ResNet-50, a linear
layer brings them to the width of the attention pooling, and its blocks are timm's, normalized before each branch.

B: batch, N: pieces, K: visible pieces, M: missing pieces, C: channels, p: pixels a side of a piece, D: width.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.attention_pooling import AttentionPooling
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import patchify, pixels, seen_by
from selfsup.parts.precision import no_autocast
from selfsup.parts.pretext import at_each_piece
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class Selfie(Method):
    """The right one of all missing pieces fits a gap best; the others are its distractors."""

    paper, family = "1906.02940", "pretext"

    class Hyper(Knobs):
        image: int = knob(224, "pixels a side of the image that is cut into pieces", ge=2)
        piece: int = knob(32, "pixels a side of a piece", gt=0)
        mask_ratio: float = knob(0.25, "share of pieces that are missing", sweep=Range(0.1, 0.6), gt=0, lt=1)
        pool_width: int = knob(1024, "channels of an embedding", sweep=Choice(256, 512, 1024), gt=0)
        pool_depth: int = knob(3, "transformer blocks of the attention pooling", sweep=Choice(1, 3), ge=1, le=1000)
        pool_heads: int = knob(32, "attention heads of the attention pooling", gt=0)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("pool")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(size=hyper.image, scale=(hyper.crop_min, 1.0), resample="bilinear")
        return Views((crop,), draws=(hyper.image // hyper.piece) ** 2)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.image % hyper.piece:
            message = f"images of {hyper.image} pixels do not divide into pieces of {hyper.piece}"
            yield SpecError(message, "hyper.piece", "hyper.image")
            return
        yield from checks.whole_pieces(setup.backbone, image=hyper.image, piece=hyper.piece)
        seen, missing = RandomMask(hyper.mask_ratio).typical((hyper.image // hyper.piece,) * 2)
        if not seen or missing < 2:
            message = f"of {seen + missing} pieces {missing} are missing; some must stay, and two or more go"
            yield SpecError(message, "hyper.mask_ratio", "hyper.piece", "hyper.image")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.side, self.piece = hyper.image // hyper.piece, hyper.piece
        self.rule = RandomMask(hyper.mask_ratio)
        self.embed = nn.Linear(self.backbone.dim, hyper.pool_width)
        self.pool = AttentionPooling(self.side, hyper.pool_width, hyper.pool_depth, hyper.pool_heads)

    def forward(self, batch: Batch) -> Out:
        images = pixels(batch.views[0].value, self.backbone.patch)
        embedded = at_each_piece(self._embedded, self._cut(images))
        mask = self.rule.draw(batch.draws, (self.side, self.side), images.device)
        missing = embedded.take_along_dim(mask.hide[..., None], dim=1)
        queries = self.pool(embedded, mask.keep)[:, None] + self.pool.positions()[mask.hide]
        with no_autocast(queries):
            logits = (queries.float() @ missing.float().mT).flatten(0, 1)  # (B M, M): every gap by every missing piece
        truth = torch.arange(logits.shape[1], device=logits.device).repeat(len(missing))
        return Out(cross_entropy(logits, truth), {"accuracy": accuracy(logits, truth)})

    def _cut(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, N, C, p, p), row by row"""
        value = patchify(images, self.piece).value
        return value.view(*value.shape[:2], self.piece, self.piece, images.shape[1]).movedim(4, 2)

    def _embedded(self, cut: Tensor) -> Tensor:
        """(N, C, p, p) -> (N, D)"""
        embedded: Tensor = self.embed(self.backbone.pooled(seen_by(cut, self.backbone.patch)))
        return embedded
