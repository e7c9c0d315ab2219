"""Denoising autoencoder: an encoder sees a corrupted image, from whose features the clean one is painted.

Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with denoising autoencoders", ICML
2008, and Bengio, Yao, Alain and Vincent, "Generalized denoising auto-encoders as generative models", NeurIPS 2013,
arXiv:1305.6663. A quarter of all values are set to zero by default, as in the first; Gaussian noise and the emphasis on
what was corrupted are of Vincent et al., "Stacked denoising autoencoders", JMLR 2010.

There is no authors' code for images of this size. Here the encoder is trained as a whole, not layer by layer, its
features of places are decoded by one sub-pixel convolution, not by its own weights transposed, and the loss is the
squared error. Each value is corrupted by itself, where the papers set a fixed number of them to zero; zero is the
mean of the data.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, noise
from selfsup.parts.painting import Painter, stride
from selfsup.parts.patch import pixels, seen_by
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class Denoising(Method):
    """A corrupted image is painted as it was before, which takes knowledge of how images usually are."""

    paper, family = "1305.6663", "reconstruction"

    class Hyper(Knobs):
        noise: Literal["mask", "gaussian"] = knob(
            "mask", "corruption: some values are zero, or all have noise", sweep=Choice("mask", "gaussian")
        )
        share: float = knob(0.25, "share of values that are set to zero", symbol="ν", sweep=Range(0.1, 0.9), ge=0, lt=1)
        sigma: float = knob(0.5, "deviation of Gaussian noise, the data's being 1", sweep=Range(0.1, 2.0), ge=0)
        emphasis: float = knob(1.0, "weight of values that kept theirs, of those set to zero 1", ge=0, le=1)
        depth: int = knob(0, "hidden layers of the decoder", sweep=Choice(0, 1, 2), ge=0, le=100)
        width: int = knob(512, "channels of a hidden layer of the decoder", gt=0)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1)),), draws=2)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.noise == "gaussian":
            yield from checks.idle(hyper, "emphasis", "noise")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        factor = stride(self.backbone, info.channels, info.sizes)
        self.painter = Painter(self.backbone.dim, info.channels, factor, width=hyper.width, depth=hyper.depth)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        clean = self._clean(batch)
        corrupted, weight = self._corrupted(clean, batch.draws)
        error = (self._painted(corrupted) - clean).float().square()
        return Out((weight * error).mean(), {"error": error.mean()})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W)"""
        return self._painted(self.seen(batch))

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W)"""
        return self._corrupted(self._clean(batch), batch.draws)[0]

    def _clean(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W)"""
        return pixels(batch.views[0].value, self.backbone.patch)

    def _corrupted(self, clean: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), (B, 2) -> the same, and weights of the error of each value"""
        shape = tuple(clean.shape[1:])
        if self.hyper.noise == "gaussian":
            return clean + self.hyper.sigma * noise.gaussian(draws, shape), torch.ones_like(clean)
        lost = noise.uniform(draws, shape) < self.hyper.share
        return clean.masked_fill(lost, 0.0), torch.where(lost, 1.0, self.hyper.emphasis)

    def _painted(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        painted: Tensor = self.painter(self.backbone.spatial(seen_by(images, self.backbone.patch)))
        return painted
