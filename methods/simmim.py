"""SimMIM: a ViT sees an image with masked squares, and one linear layer predicts their pixels.

Xie, Zhang, Cao, Lin, Bao, Yao, Dai and Hu, "SimMIM: a simple framework for masked image modeling", CVPR 2022,
arXiv:2111.09886. Defaults are the paper's for ViT-B/16 on images of 224 pixels, whose squares of 32 pixels are two
patches a side.

Deviations from the authors' code: a ViT of any kind, where theirs has a bias of relative positions that all blocks
share, and no positions beside it; no Swin; the mean over masked pixels is exact, where theirs adds 1e-5 to their count.

B: batch, N: tokens, M: masked ones of all samples, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import SquareMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial
from selfsup.parts.distillation import covered
from selfsup.parts.reconstruction import masked_smooth_l1
from selfsup.parts.tokens import Tokens, at
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class SimMIM(Method):
    """The encoder does the whole work: it sees one learned vector in place of every masked patch."""

    paper, family, backbones = "2111.09886", "reconstruction", ("vit",)
    modalities = None  # any: what it learns from a view does not depend on its kind
    separable = True
    initialize = staticmethod(initial.beit)

    class Hyper(Knobs):
        mask_ratio: float = knob(0.6, "share of squares that are masked", sweep=Range(0.1, 0.9), gt=0, lt=1)
        mask_side: int = knob(2, "patches a side of a masked square", sweep=Choice(1, 2), ge=1)
        crop_min: float = knob(
            0.67, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1
        )

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        mask = SquareMask(hyper.mask_ratio, hyper.mask_side)
        return Views((Crop(scale=(hyper.crop_min, 1.0), resample="bilinear", mask=mask),))  # as in its code

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.of_a_grid(setup.modality)
        yield from checks.whole_squares("mask_side", hyper.mask_side, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.mask_token = nn.Parameter(torch.empty(1, self.backbone.dim))  # a matrix: it decays, as theirs
        initial.cut_normal(self.mask_token)
        self.head = nn.Linear(self.backbone.dim, self.backbone.patch_values)

    def forward(self, batch: Batch) -> Out:
        tokens, where, places, weight = self._masked(batch)
        painted = self.head(at(self._seen(tokens, where), places))
        return Out(masked_smooth_l1(painted, at(tokens.value, places), weight))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as the head paints it."""
        tokens, where, *_ = self._masked(batch)
        painted: Tensor = self.head(self._seen(tokens, where)).float()
        return painted

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(no_weight_decay=initial.spared(name))

    def _seen(self, tokens: Tokens, where: Tensor) -> Tensor:
        """-> (B, N, D): features of the patches, masked ones included"""
        hidden: Tensor = self.backbone(tokens, cover=(where, self.mask_token))
        return hidden[:, self.backbone.num_prefix :]

    @staticmethod
    def _masked(batch: Batch) -> tuple[Tokens, Tensor, Tensor, Tensor]:
        """-> the tokens of the one view, and (B, N) bool, (M,), (M,) as of `covered`"""
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        return view.value, *covered([view.mask])
