"""Split-brain autoencoder: the lightness of an image predicts its colors, and the colors predict the lightness.

Zhang, Isola and Efros, "Split-brain autoencoders: unsupervised learning by cross-channel prediction", CVPR 2017,
arXiv:1611.09842. Both are told as classes, as in the paper's best model: bins of a and b, and 100 of the lightness.

Deviations from the authors' code: theirs are two halves of an AlexNet, side by side, each of which sees its channels
alone. Here a usual encoder sees both, one after the other, each as an image of three channels: gray, and in colors of
one lightness, cut off where sRGB has none; evaluation shows it whole images. Bins of color are the 261 cells that
colors of sRGB fall into, of the authors' 313. Features of places are decoded by hidden convolutions and a sub-pixel
one.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.color import bins, near_bins
from selfsup.parts.lab_images import LabImages
from selfsup.parts.painting import Painter, stride
from selfsup.parts.patch import seen_by
from selfsup.sections import Setup
from selfsup.views import Crop, Views

LEVELS = 100  # of lightness


@final
class SplitBrain(Method):
    """Either half of an image's channels has to tell the other, so that together they are known whole."""

    paper, family = "1611.09842", "pretext"
    centers: Tensor  # (Q, 2): a and b of the bins

    class Hyper(Knobs):
        detail: int = knob(4, "pixels a side of a place that is predicted", sweep=Choice(2, 4, 8), gt=0)
        depth: int = knob(1, "hidden layers of the decoders", sweep=Choice(0, 1, 2), ge=0, le=100)
        width: int = knob(256, "channels of a hidden layer of the decoders", gt=0)
        crop_min: float = knob(0.47, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1), resample="bilinear"),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        yield from checks.colors(hyper.detail, setup.backbone, info.channels if info else 3)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.register_buffer("centers", torch.tensor(bins()), persistent=False)
        factor = stride(self.backbone, info.channels, info.sizes) // hyper.detail
        self.colors, self.lightness = (
            Painter(self.backbone.dim, number, factor, width=hyper.width, depth=hyper.depth)
            for number in (len(self.centers), LEVELS)
        )
        self.images, self.detail = LabImages(info.mean, info.std), hyper.detail

    def forward(self, batch: Batch) -> Out:
        lab = self.images.lab(batch.views[0].value, self.backbone.patch)
        of_gray, of_colors = self._predicted(lab)
        small = lab[:, :, :: self.detail, :: self.detail]
        color = near_bins(small[:, 1:].permute(0, 2, 3, 1), self.centers, 1, 1.0)[0][..., 0]
        colors = F.cross_entropy(of_gray.float(), color)
        lightness = F.cross_entropy(of_colors.float(), small[:, 0].long().clamp(0, LEVELS - 1))
        return Out(colors + lightness, {"colors": colors, "lightness": lightness})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W): mean predictions of lightness and colors, each from the other"""
        lab = self.images.lab(batch.views[0].value, self.backbone.patch)
        of_gray, of_colors = (scores.float().softmax(dim=1) for scores in self._predicted(lab))
        levels = torch.arange(LEVELS, device=lab.device)[:, None] + 0.5
        means = [torch.einsum("bqhw,qc->bchw", *pair) for pair in ((of_colors, levels), (of_gray, self.centers))]
        return self.images.normalized(
            F.interpolate(torch.cat(means, dim=1), size=tuple(lab.shape[2:]), mode="bilinear")
        )

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W): of the two images the gray one"""
        return self.images.gray(self.images.lab(batch.views[0].value, self.backbone.patch))

    def _predicted(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, Q, h, w), (B, LEVELS, h, w): scores of colors and of lightness"""
        both = torch.cat([self.images.gray(lab), self.images.colors(lab)])
        gray, colors = self.backbone.spatial(seen_by(both, self.backbone.patch)).chunk(2)
        return self.colors(gray), self.lightness(colors)
