"""data2vec: a student that sees masked patches predicts the mean of an EMA teacher's last blocks at their places.

Baevski, Hsu, Xu, Babu, Gu and Auli, "data2vec: a general framework for self-supervised learning in speech, vision and
language", ICML 2022, arXiv:2202.03555. Defaults are the paper's for ViT-B/16 on images: 120 of 196 patches are masked.

Deviations from the authors' code: colors change after the crop, there before it; no dropout in attention, there 0.05;
masked patches are averaged by image, then by batch, there all of a GPU at once, which differs where masks do in size; a
bias of relative positions in each block of a BEiT, there one that all blocks share.

B: batch, N: tokens, M: masked ones of all samples, D: channels.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import initial, recipes
from selfsup.parts.distillation import covered
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.reconstruction import masked_smooth_l1
from selfsup.parts.tokens import Tokens, at
from selfsup.sections import Setup
from selfsup.views import Views


@final
class Data2Vec(Method):
    """Targets depend on the whole image, and are features of many depths: no tokenizer, and no pixels."""

    paper, family, backbones = "2202.03555", "latent prediction", ("vit",)
    separable = True
    teacher: TokenEncoder

    class Hyper(Knobs):
        mask_ratio: float = knob(0.6125, "share of patches that is masked, at most", sweep=Range(0.3, 0.8), gt=0, lt=1)
        average: int = knob(6, "last blocks of the teacher that are averaged", symbol="K", sweep=Choice(1, 3, 6), ge=1)
        beta: float = knob(
            2.0, "error at which its square turns into its absolute value", symbol="β", sweep=Choice(0.5, 2.0), ge=0
        )
        momentum: float = knob(0.9998, "of the teacher", symbol="τ", sweep=Choice(0.999, 0.9998), ge=0, le=1)
        mask_block: int = knob(16, "patches of the smallest rectangle that is masked at once", ge=1)
        strength: float = knob(0.4, "strength of color jitter", sweep=Choice(0.0, 0.4), ge=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((recipes.beit(hyper),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        depth = setup.backbone.blocks
        if depth is not None and hyper.average > depth:
            message = f"a backbone of {depth} blocks has no {hyper.average} last ones to average"
            yield SpecError(message, "hyper.average", "backbone.depth")

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.beit(trunk)
        initial.scaled_branches(trunk, 1e-4)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.mask_token = nn.Parameter(torch.empty(1, self.backbone.dim))  # a matrix: it decays, as theirs
        self.head = nn.Linear(self.backbone.dim, self.backbone.dim)
        initial.cut_normal(self.mask_token, self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.teacher = ema_copy(self.backbone)

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        where, places, weight = covered([view.mask])
        hidden = self.backbone(view.value, cover=(where, self.mask_token))[:, self.backbone.num_prefix :]
        predicted, targets = self.head(at(hidden, places)), at(self._targets(view.value), places)
        return Out(masked_smooth_l1(predicted, targets, weight, beta=self.hyper.beta))

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        ema_update(self.teacher, self.backbone, self.hyper.momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(no_weight_decay=initial.spared(name))

    @torch.no_grad()
    def _targets(self, tokens: Tokens) -> Tensor:
        """-> (B, N, D): means of the last blocks' outputs, normalized over channels before and after (section 3.3)"""
        states = list(self.teacher.states(tokens))[-self.hyper.average :]
        patches = [state[:, self.teacher.num_prefix :].float() for state in states]
        mean = torch.stack([F.layer_norm(state, state.shape[-1:]) for state in patches]).mean(dim=0)
        return F.layer_norm(mean, mean.shape[-1:])
