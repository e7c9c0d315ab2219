"""GMML: groups of neighboring patches are replaced by noise, and a ViT paints what was there.

Atito, Awais and Kittler, "GMML is all you need", 2022, arXiv:2205.14986, the masked part of their "SiT: self-supervised
vision transformer", arXiv:2104.03602, whose contrast of two views is the knob `contrast`. Defaults are the code's:
half to three quarters of the patches are replaced, two views of an image a step.

Deviations from the authors' code: groups are of whole patches, and hold noise only, where its groups of any pixels also
hold parts of other images, in half of all cases. Pixels are painted from the last block by two hidden layers a patch,
where its decoder reads four blocks. The contrast is SimCLR's, of mean tokens, without SiT's momentum encoder.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.batch import View
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.groupmask import GroupMask
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import BoolMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, dist, noise
from selfsup.parts.contrastive import nt_xent
from selfsup.parts.heads import gelu_mlp, mlp
from selfsup.parts.reconstruction import masked_smooth_l1
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class GMML(Method):
    """Neighboring patches are lost together, so that what they showed is not to be had from their neighbors."""

    paper, family, backbones = "2205.14986", "reconstruction", ("vit",)

    class Hyper(Knobs):
        mask_ratio: float = knob(0.75, "largest share of patches replaced", sweep=Range(0.3, 0.9), gt=0, lt=1)
        hidden: int = knob(2048, "channels of the hidden layers that paint", sweep=Choice(512, 2048), gt=0)
        contrast: float = knob(0.0, "weight of the contrast of views, as SiT's", sweep=Choice(0.0, 1.0), ge=0)
        temperature: float = knob(0.2, "softmax temperature of the contrast", symbol="τ", gt=0)
        dim: int = knob(256, "channels of the space that views are compared in", gt=0)
        crop_min: float = knob(0.05, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(
            scale=(hyper.crop_min, 1),
            jitter=0.3,
            brightness=0.1,
            contrast=0.1,
            saturation=0.1,
            hue=0.01,
            blur=0.1,
            mask=GroupMask(hyper.mask_ratio),
        )
        return Views((crop, crop), draws=4)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.mask_leaves_both(GroupMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        width = self.backbone.dim
        self.painter = gelu_mlp(width, hyper.hidden, hyper.hidden, self.backbone.patch_values)
        if hyper.contrast:
            self.projector = mlp(width, width, hyper.dim, out="norm")
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        features = [self.backbone(seen) for seen in self._corrupted(batch)]
        painted = torch.stack([self._error(*pair) for pair in zip(features, batch.views, strict=True)]).mean()
        if not self.hyper.contrast:
            return Out(painted)
        one, two = (self.projector(tokens.mean(dim=1)) for tokens in features)
        contrast = nt_xent(one, two, temperature=self.hyper.temperature)
        return Out(painted + self.hyper.contrast * contrast, {"painted": painted, "contrast": contrast})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P)"""
        return self._painted(self.backbone(self._corrupted(batch)[0])).float()

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): with noise where patches are replaced"""
        return self._corrupted(batch)[0].value

    def _corrupted(self, batch: Batch) -> list[Tokens]:
        """Return the tokens of each view, noise in place of those of its mask."""
        corrupted = []
        for view, draws in zip(batch.views, batch.draws.chunk(2, dim=1), strict=True):
            tokens, where = _masked(view)
            replaced = noise.gaussian(draws, tuple(tokens.value.shape[1:]))
            corrupted.append(tokens._replace(value=torch.where(where[..., None], replaced, tokens.value)))
        return corrupted

    def _painted(self, features: Tensor) -> Tensor:
        """(B, num_prefix + N, D) -> (B, N, P)"""
        painted: Tensor = self.painter(features[:, self.backbone.num_prefix :])
        return painted

    def _error(self, features: Tensor, view: View) -> Tensor:
        """-> (): the absolute error of replaced patches, the mean over those of the whole batch"""
        tokens, where = _masked(view)
        counted = dist.mean(where.sum().float())
        painted, target = (values.flatten(0, 1) for values in (self._painted(features), tokens.value))
        return masked_smooth_l1(painted, target, where.flatten() / counted)


def _masked(view: View) -> tuple[Tokens, Tensor]:
    """Return the tokens of a view, and (B, N) bool, which of them are replaced."""
    assert isinstance(view.value, Tokens)
    assert isinstance(view.mask, BoolMask)
    return view.value, view.mask.where
