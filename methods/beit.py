"""BEiT: a ViT predicts, at masked patches, the codes that a tokenizer gives to the patches themselves.

Bao, Dong, Piao and Wei, "BEiT: BERT pre-training of image transformers", ICLR 2022, arXiv:2106.08254. The tokenizer is
the spec's `teacher`, such as in1k/vqvae; the paper's is DALL-E's dVAE. Defaults are the paper's, which masks 40 % of
the patches; the authors' code masks 75 of 196.

Deviations from the authors' code: every sample weighs the same, where there every masked patch does, so that the loss
does not depend on the number of workers. The tokenizer sees what the ViT sees, where theirs sees the same crop at half
the resolution, by another filter.

B: batch, N: tokens, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BoolMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial, recipes
from selfsup.parts.distillation import covered
from selfsup.parts.tokens import at
from selfsup.sections import Setup
from selfsup.views import Views


@final
class BEiT(Method):
    """Masked patches are replaced by one learned vector; a linear layer tells the code of what was there."""

    paper, family, backbones = "2106.08254", "reconstruction", ("vit",)
    learns_from = "codes"
    initialize = staticmethod(initial.beit)

    class Hyper(Knobs):
        mask_ratio: float = knob(0.4, "share of patches that are masked, at most", sweep=Range(0.15, 0.75), gt=0, lt=1)
        mask_block: int = knob(16, "patches of the smallest rectangle that is masked at once", ge=1)
        strength: float = knob(0.4, "strength of color jitter", sweep=Choice(0.0, 0.4), ge=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((recipes.beit(hyper),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if info and info.teacher:
            yield from checks.a_code_a_token(info.teacher, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert info.teacher, "it learns from a tokenizer"
        self.teacher = info.teacher
        self.mask_token = nn.Parameter(torch.empty(1, self.backbone.dim))  # a matrix: it decays, as theirs
        self.head = nn.Linear(self.backbone.dim, info.teacher.num_codes)
        initial.cut_normal(self.mask_token, self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        where, places, weight = covered([view.mask])
        hidden = self.backbone(view.value, cover=(where, self.mask_token))[:, self.backbone.num_prefix :]
        logits, code = self.head(at(hidden, places)).float(), self.teacher.codes(view.value).flatten()[places]
        loss = (F.cross_entropy(logits, code, reduction="none") * weight).sum()
        return Out(loss, {"code_accuracy": ((logits.argmax(dim=1) == code) * weight).sum()})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): what the tokenizer paints of the likeliest codes, among those of visible patches."""
        [view] = batch.views
        assert isinstance(view.mask, BoolMask)
        where, codes = view.mask.where, self.teacher.codes(view.value)
        hidden = self.backbone(view.value, cover=(where, self.mask_token))[:, self.backbone.num_prefix :]
        return self.teacher.decoded(torch.where(where, self.head(hidden).argmax(dim=2), codes))

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(no_weight_decay=initial.spared(name))
