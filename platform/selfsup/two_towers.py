"""Objectives of two towers: samples and their captions, embedded in one space.

B: samples, D: channels.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, TrainInfo
from selfsup.parts.precision import no_autocast
from selfsup.parts.tokens import Tokens, kept
from selfsup.views import Beside, Crop, Views


class TowerKnobs(Knobs):
    """Knobs of two towers."""

    dim: int = knob(512, "channels of the space that both are compared in", sweep=Choice(256, 512), gt=0)


class PairKnobs(TowerKnobs):
    """Knobs of two towers, of an image and its caption, where FLIP's masks (arXiv 2212.00794) are an option."""

    crop_min: float = knob(0.9, "smallest crop, as a share of the image", sweep=Range(0.3, 1.0), gt=0, le=1)
    flip: float = knob(0.0, "share of images that are mirrored", sweep=Choice(0.0, 0.5), ge=0, le=1)
    mask_ratio: float = knob(0.0, "share of patches that are left out", sweep=Choice(0.0, 0.5, 0.75), ge=0, lt=1)


def paired_views(hyper: PairKnobs) -> Views:
    """Return a view of an image, and its caption."""
    mask = RandomMask(hyper.mask_ratio) if hyper.mask_ratio else None
    return Views((Crop(scale=(hyper.crop_min, 1.0), flip=hyper.flip, mask=mask), Beside(field="text")))


class Logits(nn.Module):
    """The learned scale of cosines, as its logarithm, and a bias that is added, if there is one.

    temperature: one over the scale at the beginning. most: of the scale, which `bound` keeps.
    """

    def __init__(self, temperature: float, bias: float | None = None, *, most: float = math.inf) -> None:
        super().__init__()
        self.log_scale, self.most = nn.Parameter(torch.tensor(-math.log(temperature))), math.log(most)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    @property
    def scale(self) -> Tensor:
        """-> ()"""
        return self.log_scale.exp()

    def bound(self) -> None:
        self.log_scale.data.clamp_(max=self.most)


class TwoTowers(Method):
    """An encoder of images and one of captions, each with a linear projection into one space.

    A projection begins with the deviation of CLIP's authors (arXiv 2103.00020), one over the square root of its input.
    """

    beside: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, hyper: Any, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        own = {name: nn.Linear(encoder.dim, hyper.dim, bias=False) for name, encoder in encoders.items()}
        for layer in own.values():
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        self.projections = nn.ModuleDict(own)

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        encoder: Any = self.encoders[modality]
        embedded: Tensor = self.projections[modality](encoder.pooled(view))
        return F.normalize(embedded.float(), dim=1)

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (B, D), (B, D): unit vectors of the first view and of the caption, which is the last"""
        first, last = batch.views[0], batch.views[-1]
        seen = first.value
        if first.mask is not None:
            assert isinstance(seen, Tokens), "masks leave out tokens"
            assert isinstance(first.mask, IndexMask), "tokens are left out, not replaced"
            seen = kept(seen, first.mask.keep)
        return self.joint(first.modality, seen), self.joint(last.modality, last.value)


@torch.no_grad()
def accuracy(a: Tensor, b: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): the share of samples whose own partner, of the batch here, is the most similar"""
    with no_autocast(a):
        best = (a.float() @ b.float().T).argmax(1)
    return (best == torch.arange(len(a), device=a.device)).float().mean()
