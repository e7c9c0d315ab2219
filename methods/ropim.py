"""ROPIM: a ViT sees patches mixed by a random projection, and predicts what of the image it took away.

Haghighat, Moghadam, Mohamed and Koniusz, "Pre-training with random orthogonal projection image modeling", ICLR 2024,
arXiv:2310.18737. Defaults are the authors' for ViT-B/16.

Deviations from the authors' code: the mean of a bucket is over its own patches, so that this is a projection for any
number of them, where theirs multiplies their sum by the sketching ratio: for 196 patches and a ratio of 0.14 by 0.14
and not by 1/7. A ViT of any kind, where theirs has a bias of relative positions that all blocks share.

B: batch, N: tokens, P: values of a patch, D: channels.
"""

import math
from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import initial, noise
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class ROPIM(Method):
    """Count sketching in place of a mask: each patch is hidden to some degree, and the complement is to be restored."""

    paper, family, backbones = "2310.18737", "reconstruction", ("vit",)
    separable = True
    initialize = staticmethod(initial.beit)

    class Hyper(Knobs):
        ratio: float = knob(
            0.14,
            "dimensions that are left, as a share of the patches",
            symbol="ρ",
            sweep=Choice(0.07, 0.14, 0.25),
            gt=0,
            lt=1,
        )
        crop_min: float = knob(0.67, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), resample="bilinear"),), draws=2)  # as in its code

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        tokens = math.prod(setup.grid or (0,))
        if tokens and math.ceil(tokens * hyper.ratio) == tokens:
            message = f"{tokens} patches at a ratio of {hyper.ratio:g} are not mixed: nothing is taken away"
            yield SpecError(message, "hyper.ratio", "backbone.patch_size", "backbone.image_size")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.ratio = hyper.ratio
        self.head = nn.Linear(self.backbone.dim, self.backbone.patch_values)

    def forward(self, batch: Batch) -> Out:
        tokens, sketch = self._tokens(batch), self._sketch(batch)
        error = (tokens.value - self._painted(tokens, sketch)).float()
        return Out((error - projected(error, *sketch)).abs().mean())

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as the head paints it."""
        return self._painted(self._tokens(batch), self._sketch(batch)).float()

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): patches mixed as their embeddings are."""
        return projected(self._tokens(batch).value, *self._sketch(batch))

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(no_weight_decay=initial.spared(name))

    def _painted(self, tokens: Tokens, sketch: tuple[Tensor, Tensor]) -> Tensor:
        hidden = self.backbone(tokens, join=lambda patches, positions: projected(patches, *sketch) + positions)
        painted: Tensor = self.head(hidden[:, self.backbone.num_prefix :])
        return painted

    def _sketch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (B, N) int64, (B, N): each patch's bucket, every one in each run of as many patches; and its sign"""
        number = self._tokens(batch).value.shape[1]
        buckets = math.ceil(number * self.ratio)
        runs = math.ceil(number / buckets)
        order = noise.uniform(batch.draws, (runs, buckets)).argsort(dim=2).flatten(1)[:, :number]
        rank = noise.uniform(batch.draws, (number,), stream=runs).argsort(dim=1).argsort(dim=1)
        return order, torch.where(rank % 2 == 0, -1.0, 1.0)  # half of each sign

    @staticmethod
    def _tokens(batch: Batch) -> Tokens:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        return view.value


def projected(patches: Tensor, bucket: Tensor, sign: Tensor) -> Tensor:
    """(B, N, D), (B, N), (B, N) -> (B, N, D): its sign times the mean of its bucket's signed patches, for each.

    An orthogonal projection of the N patches of a sample, by a count sketch (eq. 3).
    """
    size = torch.zeros_like(sign).scatter_add_(1, bucket, torch.ones_like(sign)).gather(1, bucket)[..., None]
    place = bucket[..., None].expand_as(patches)
    total = torch.zeros_like(patches).scatter_add(1, place, patches * sign[..., None].to(patches))
    return total.gather(1, place) * (sign[..., None] / size).to(patches)
