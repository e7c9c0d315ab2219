"""NEPA: a ViT that reads patches in their order predicts, at each, the embedding of the next one.

Xu, Ma, Chai, Chen, Jin, Chai, Xie and Yu, "Next-embedding prediction makes strong vision learners", 2025,
arXiv:2512.16922. Its ViT has rotary positions, LayerScale and normalized queries and keys, as timm's
vit_base_patch16_dinov3_qkvb with backbone.qk_norm, without which the paper reports runs that diverge.

Deviations from the authors' code: the norms of queries and keys have a scale and a shift of their own; registers stand
before the patches, where the backbone has them; positions are not rescaled at random in training; timm's GELU for the
paper's SwiGLU, as in the authors' release. Where positions are added to patches, they are part of the embeddings.

B: batch, N: patches, T: these and prefix tokens, D: channels.
"""

from collections.abc import Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import initial
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, Views


@final
class NEPA(Method):
    """No decoder, no head and no teacher: the target is the encoder's own input, from which no gradient comes back."""

    paper, family, backbones = "2512.16922", "autoregression", ("vit",)
    separable = True
    evaluated = "average"
    average: TokenEncoder

    class Hyper(Knobs):
        momentum: float = knob(
            0.9999, "of the average of weights that is evaluated", sweep=Choice(0.99, 0.999, 0.9999), ge=0, le=1
        )
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),))

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk)
        initial.truncated_patches(trunk)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.momentum, self.average = hyper.momentum, ema_copy(self.backbone)

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        embedded = self.backbone.embedded(view.value)[:, -view.value.value.shape[1] :].detach().float()
        predicted, target = self._predicted(view.value), embedded[:, -self._asked(view.value) :]
        return Out(-F.cosine_similarity(predicted, target, dim=2).mean())

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        ema_update(self.average, self.backbone, self.momentum)

    def _predicted(self, tokens: Tokens) -> Tensor:
        """-> (B, N or N - 1, D): predicted embeddings of all patches that something stands before"""
        length = self.backbone.num_prefix + tokens.value.shape[1]
        reads = torch.ones(length, length, dtype=torch.bool, device=tokens.value.device).tril()
        hidden: Tensor = self.backbone(tokens, attended=reads.expand(len(tokens.value), 1, -1, -1)).float()
        return hidden[:, :-1][:, -self._asked(tokens) :]

    def _asked(self, tokens: Tokens) -> int:
        """Return the number of patches that are predicted: all that something stands before."""
        return tokens.value.shape[1] - int(self.backbone.num_prefix == 0)
