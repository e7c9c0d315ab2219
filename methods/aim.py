"""AIM: a ViT that reads patches in order predicts the pixels of the next one from those before it.

El-Nouby, Klein, Zhai, Bautista, Toshev, Shankar, Susskind and Joulin, "Scalable pre-training of large autoregressive
image models", ICML 2024, arXiv:2401.08541. Defaults are the paper's for AIM-0.6B, as far as its model's code, lightly's
implementation and reviews tell them.

Deviations from the authors' code: its trunk, all that it has, is without biases and class token, and has a norm after
the patch embedding; here a class token reads what the first patch reads. The errors of an image are averaged before
those of a batch, which no source tells.

B: batch, N: patches, T: these and prefix tokens of the trunk, P: values of a patch, D: channels.
"""

from collections.abc import Mapping
from typing import final

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos
from selfsup.parts.reconstruction import moments
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, Views


@final
class AIM(Method):
    """A first part of the image, of random length, is read in both directions, so that encoders may do so later."""

    paper, family, backbones = "2401.08541", "autoregression", ("vit",)
    separable = True

    class Hyper(Knobs):
        prefix: bool = knob(
            True, "a part of random length is read in both directions, and not predicted", sweep=Choice(True, False)
        )
        norm_pix_loss: bool = knob(
            True, "predict each patch normalized by its own mean and deviation", sweep=Choice(True, False)
        )
        head_width: int = knob(2048, "channels of the head", sweep=Choice(512, 1024, 2048), gt=0)
        head_depth: int = knob(12, "blocks of the head, an MLP each", sweep=Choice(1, 8, 12), ge=0, le=1000)
        crop_min: float = knob(0.4, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), draws=1)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.head = PixelHead(self.backbone, width=hyper.head_width, depth=hyper.head_depth)

    def forward(self, batch: Batch) -> Out:
        tokens, first = self._tokens(batch), self._first(batch)
        target = tokens.value.float()
        if self.hyper.norm_pix_loss:
            mean, deviation = moments(target)
            target = (target - mean) / deviation
        error = (self._next(tokens, first) - target[:, 1:]).square().mean(dim=2)
        asked = self._asked(first, error.shape[1] + 1)[:, 1:]
        return Out(((error * asked).sum(dim=1) / asked.sum(dim=1)).mean())

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): what is predicted of each patch from all before it, after the first part as it is."""
        tokens, first = self._tokens(batch), self._first(batch)
        painted = self._next(tokens, first)
        if self.hyper.norm_pix_loss:
            mean, deviation = moments(tokens.value[:, 1:].float())
            painted = painted * deviation + mean
        asked = self._asked(first, tokens.value.shape[1])[..., None]
        return torch.where(asked, torch.cat([tokens.value[:, :1], painted], dim=1), tokens.value)

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): the part that is read in both directions."""
        tokens = self._tokens(batch)
        return tokens.value.masked_fill(self._asked(self._first(batch), tokens.value.shape[1])[..., None], 0.0)

    def _next(self, tokens: Tokens, first: Tensor) -> Tensor:
        """-> (B, N - 1, P): predictions of all patches but the first"""
        number = torch.arange(-self.backbone.num_prefix, tokens.value.shape[1], device=first.device)
        attended = (number <= number[:, None]) | (number < first[:, None, None])  # (B, T, T)
        hidden = self.backbone(tokens, attended=attended[:, None])
        predicted: Tensor = self.head(hidden[:, self.backbone.num_prefix :])[:, :-1].float()
        return predicted

    def _first(self, batch: Batch) -> Tensor:
        """-> (B,): how many patches, at least one and not all, are read in both directions"""
        number = self._tokens(batch).value.shape[1]
        return 1 + (batch.draws[:, 0] * (number - 1) * self.hyper.prefix).long()

    @staticmethod
    def _asked(first: Tensor, number: int) -> Tensor:
        """(B,) -> (B, N) bool: the patches that are predicted"""
        return torch.arange(number, device=first.device) >= first[:, None]

    @staticmethod
    def _tokens(batch: Batch) -> Tokens:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        return view.value


class PixelHead(nn.Module):
    """MLPs with residuals between them, patch by patch, so that the trunk need not end in pixels (section 3.2).

    Positions are added before it, as the paper has it and lightly's implementation.
    """

    positions: Tensor

    def __init__(self, encoder: TokenEncoder, *, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.dim, width, bias=False)
        self.register_buffer("positions", sincos(encoder.grid, encoder.dim), persistent=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(depth + 1))
        self.blocks = nn.ModuleList(Mlp(width, 4 * width, bias=False) for _ in range(depth))
        self.paint = nn.Linear(width, encoder.patch_values, bias=False)
        xavier_linears(self)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, P)"""
        hidden = self.embed(hidden + self.positions)
        *before, last = self.norms
        for norm, block in zip(before, self.blocks, strict=True):
            hidden = hidden + block(norm(hidden))
        painted: Tensor = self.paint(last(hidden))
        return painted
