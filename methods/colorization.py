"""Colorization: from a gray image, an encoder predicts the color of every place, as a distribution over bins.

Zhang, Isola and Efros, "Colorful image colorization", ECCV 2016, arXiv:1603.08511. Defaults are the paper's: five
nearest bins as targets, weights of classes by the inverse of how frequent they are, mixed with a uniform share of a
half. The encoder is a usual one, which sees the gray image in all three channels.

Deviations from the authors' code: bins are the 261 cells of a and b that colors of sRGB fall into; the authors' list of
313 has cells around them, too. How frequent they are is the mean over all batches so far, where the authors counted
once before training. Gray images are of the lightness, in sRGB, and normalized as all images. The encoder's features of
places are decoded by hidden convolutions and a sub-pixel one, where theirs has no pooling and dilated convolutions.
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
from selfsup.parts import checks, dist
from selfsup.parts.color import bins, near_bins
from selfsup.parts.lab_images import LabImages
from selfsup.parts.painting import Painter, stride
from selfsup.parts.patch import seen_by
from selfsup.parts.precision import no_autocast
from selfsup.sections import Setup
from selfsup.views import Crop, Views

TEMPERATURE = 0.38  # of the annealed mean that pictures show, section 2.3


@final
class Colorization(Method):
    """The colors of things are guessed from what they are, which their gray image shows."""

    paper, family = "1603.08511", "pretext"
    centers: Tensor  # (Q, 2): a and b of the bins
    prior: Tensor  # (Q,): how frequent they are
    batches: Tensor  # (): that the prior is the mean of

    class Hyper(Knobs):
        detail: int = knob(4, "pixels a side of a place that gets a color", sweep=Choice(2, 4, 8), gt=0)
        neighbors: int = knob(5, "bins around a color that are its target", ge=1, le=100)
        sigma: float = knob(5.0, "width of the Gaussian of targets, in units of a and b", symbol="σ", gt=0)
        balance: float = knob(
            0.5, "uniform share in weights of classes; 1: equal", symbol="λ", sweep=Range(0.1, 1.0), gt=0, le=1
        )
        depth: int = knob(1, "hidden layers of the decoder", sweep=Choice(0, 1, 2), ge=0, le=100)
        width: int = knob(256, "channels of a hidden layer of the decoder", gt=0)
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
        number, factor = len(self.centers), stride(self.backbone, info.channels, info.sizes) // hyper.detail
        self.painter = Painter(self.backbone.dim, number, factor, width=hyper.width, depth=hyper.depth)
        self.register_buffer("prior", torch.full((number,), 1 / number))
        self.register_buffer("batches", torch.zeros(()))
        self.images, self.hyper = LabImages(info.mean, info.std), hyper

    def forward(self, batch: Batch) -> Out:
        lab = self.images.lab(batch.views[0].value, self.backbone.patch)
        nearest, share = self._targets(lab)
        logs = self._predicted(lab).float().log_softmax(dim=1).permute(0, 2, 3, 1)
        error = -(share * logs.gather(3, nearest)).sum(dim=3)
        loss = (self._weights()[nearest[..., 0]] * error).mean()
        frequency = F.one_hot(nearest[..., 0].flatten(1), len(self.centers)).to(error.dtype).mean(dim=1)
        return Out(loss, {"error": error.mean()}, {"frequency": frequency})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.batches += 1
        self.prior += (dist.mean(aux["frequency"].mean(dim=0)) - self.prior) / self.batches

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W): the image's own lightness in predicted colors"""
        lab = self.images.lab(batch.views[0].value, self.backbone.patch)
        chances = (self._predicted(lab).float().log_softmax(dim=1) / TEMPERATURE).softmax(dim=1)
        mean = torch.einsum("bqhw,qc->bchw", chances, self.centers)
        colors = F.interpolate(mean, size=tuple(lab.shape[2:]), mode="bilinear")
        return self.images.normalized(torch.cat([lab[:, :1], colors], dim=1))

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W)"""
        return self.images.gray(self.images.lab(batch.views[0].value, self.backbone.patch))

    def _predicted(self, lab: Tensor) -> Tensor:
        """-> (B, Q, h, w): scores of bins"""
        seen = seen_by(self.images.gray(lab), self.backbone.patch)
        scores: Tensor = self.painter(self.backbone.spatial(seen))
        return scores

    def _targets(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, h, w, neighbors) int64 and their shares"""
        colors = lab[:, 1:, :: self.hyper.detail, :: self.hyper.detail].permute(0, 2, 3, 1)
        return near_bins(colors, self.centers, self.hyper.neighbors, self.hyper.sigma)

    def _weights(self) -> Tensor:
        """-> (Q,): the inverse of the smoothed frequency, section 2.2, equation 4; of mean 1 over all places"""
        kernel = (-(torch.cdist(self.centers, self.centers) ** 2) / (2 * self.hyper.sigma**2)).softmax(dim=1)
        with no_autocast(kernel):
            smooth = self.prior @ kernel
        weights = 1 / ((1 - self.hyper.balance) * smooth + self.hyper.balance / len(smooth))
        return weights / (smooth * weights).sum()
