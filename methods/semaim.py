"""SemAIM: patches are predicted from the main object outward, each from those before it, by a decoder of queries.

Song, Zhang and Wang, "Semantic-aware autoregressive image modeling for visual representation learning", AAAI 2024,
arXiv:2312.10457. Defaults are the authors' for ViT-B/16, which predict blurred pixels.

Deviations from the authors' code: as a target, features are those of a spec's teacher, without class token, while the
order stays the encoder's own; there DINO's or CLIP's, which say the order, too. Its orders by an EMA of the encoder are
left out. With drop-path, the pass that finds the order has it, too. Where a ViT has registers, all read them, as they
do the class token.

B: batch, N: patches, T: these and prefix tokens, D: channels, P: values of a patch, V: values of a target.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Lesson, Method, Out, TrainInfo
from selfsup.parts import checks, noise
from selfsup.parts.heads import xavier_linears
from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.queries import QueryDecoder
from selfsup.parts.reconstruction import blurred, moments
from selfsup.parts.tokens import Tokens, places
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class SemAIM(Method):
    """The patch most like the whole image comes first, then its neighbors, and so on; the class token reads none."""

    paper, family, backbones = "2312.10457", "autoregression", ("vit",)
    class_token = True
    separable = True
    learns_from = "features"  # where these are the target

    class Hyper(Knobs):
        order: Literal["semantic", "similarity", "random", "raster"] = knob(
            "semantic",
            "of patches: by distance to the one most like the class token, by that likeness, any, or row by row",
            sweep=Choice("semantic", "random", "raster"),
        )
        target: Literal["pixels", "features"] = knob("pixels", "what is predicted: pixels, or a teacher's features")
        norm_pix_loss: bool = knob(
            True, "predict each patch normalized by its own mean and deviation", sweep=Choice(True, False)
        )
        blur: float = knob(
            1.0,
            "deviation of the Gaussian that blurs target pixels; 0: none",
            symbol="σ",
            sweep=Choice(0.0, 1.0),
            ge=0,
            le=100,
        )
        decoder_depth: int = knob(12, "blocks of the decoder, evenly beside the encoder's", ge=1, le=1000)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def lesson(cls, hyper: Hyper) -> Lesson | None:
        return "features" if hyper.target == "features" else None

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), draws=2)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        depth = setup.backbone.blocks
        if depth is not None and depth % hyper.decoder_depth:
            message = f"{depth} blocks of the encoder do not divide into {hyper.decoder_depth} of the decoder"
            yield SpecError(message, "hyper.decoder_depth", "backbone.depth")
        if hyper.target == "features":
            yield from checks.idle(hyper, "norm_pix_loss", "target")
            yield from checks.idle(hyper, "blur", "target")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.teacher, width = hyper, info.teacher, self.backbone.dim
        values = self.teacher.dim if self.teacher else self.backbone.patch_values
        self.decoder = QueryDecoder(self.backbone, depth=hyper.decoder_depth)
        self.head = Mlp(width, 4 * width, values)
        xavier_linears(self.head)

    def forward(self, batch: Batch) -> Out:
        tokens = self._tokens(batch)
        predicted = self._predicted(tokens, self._ranks(batch))
        if self.teacher:
            apart = F.normalize(predicted, dim=2) - F.normalize(self._features(tokens), dim=2)
            return Out(apart.square().sum(dim=2).mean())
        target, mean, deviation = self._pixels(tokens)
        return Out(F.mse_loss(predicted, (target - mean) / deviation))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): what is predicted of each patch from all before it; of features, the patch that fits them best.

        Of those of the whole batch, by the angle of the teacher's features.
        """
        tokens = self._tokens(batch)
        predicted = self._predicted(tokens, self._ranks(batch))
        if self.teacher:
            known = F.normalize(self._features(tokens), dim=2).flatten(0, 1)
            fits = F.normalize(predicted, dim=2) @ known.T  # (B, N, B * N)
            return tokens.value.flatten(0, 1)[fits.argmax(dim=2)]
        _, mean, deviation = self._pixels(tokens)
        return predicted * deviation + mean

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): the first half of the patches in their order."""
        value = self._tokens(batch).value
        return value.masked_fill(self._ranks(batch)[..., None] >= value.shape[1] // 2, 0.0)

    def _predicted(self, tokens: Tokens, rank: Tensor) -> Tensor:
        """-> (B, N, V): of each patch, from those of lower rank and the prefix"""
        prefix = self.backbone.num_prefix
        before, own = rank[:, None] < rank[..., None], rank[:, None] == rank[..., None]  # (B, N, N)
        attended = F.pad(F.pad(before | own, (prefix, 0), value=True), (0, 0, prefix, 0), value=False)
        attended[:, :prefix, :prefix] = True
        states = self.backbone.states(tokens, attended[:, None])
        hidden = self.decoder(states, F.pad(before, (prefix, 0), value=True)[:, None])
        predicted: Tensor = self.head(self.backbone.trunk.norm(hidden)).float()
        return predicted

    @torch.no_grad()
    def _ranks(self, batch: Batch) -> Tensor:
        """-> (B, N) int64: the place of each patch in the order, 0 for the first"""
        tokens, number = self._tokens(batch), self._tokens(batch).value.shape[1]
        chance = noise.uniform(batch.draws, (number,))
        if self.hyper.order == "raster":
            return torch.arange(number, device=chance.device).expand_as(chance)
        if self.hyper.order == "random":
            return chance.argsort(dim=1).argsort(dim=1)
        hidden = self.backbone(tokens).float()
        likeness = F.cosine_similarity(hidden[:, :1], hidden[:, self.backbone.num_prefix :], dim=2)
        if self.hyper.order == "similarity":
            return likeness.argsort(dim=1, descending=True).argsort(dim=1)
        place = places(tokens.grid, chance.device)
        center = place[likeness.argmax(dim=1)]
        distance = (place - center[:, None]).square().sum(dim=2)  # whole numbers: chance decides between equal ones
        return (distance + chance).argsort(dim=1, stable=True).argsort(dim=1)

    def _pixels(self, tokens: Tokens) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """-> (B, N, P), and what normalizes them: mean and deviation of each patch, (B, N, 1), or 0 and 1"""
        grid, patch, value = tokens.grid, self.backbone.patch, tokens.value.float()
        if self.hyper.blur:
            value = patchify(blurred(unpatchify(value, grid=grid, patch=patch), self.hyper.blur), patch).value
        return value, *(moments(value) if self.hyper.norm_pix_loss else (0.0, 1.0))

    def _features(self, tokens: Tokens) -> Tensor:
        """-> (B, N, V): the teacher's"""
        assert self.teacher
        return self.teacher.features(tokens, tokens.grid)[1]

    @staticmethod
    def _tokens(batch: Batch) -> Tokens:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        return view.value
