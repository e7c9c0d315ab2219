"""Context encoder: what is missing of an image is painted from the rest, in one piece, from one vector.

Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders: feature learning by inpainting", CVPR 2016,
arXiv:1604.07379. Defaults are the paper's for learning features: regions of any shape, a quarter of the image, without
the adversarial loss, which it weighs 0.001 for inpainting (`adversarial`). That term takes two players: the
discriminator learns from its own loss, on true images and detached painted ones, at a tenth of the rate; the painter
from the loss of a copy of the discriminator that stands still. Their sum has the gradients of both, in one step.

Deviations from the authors' code: both players move at once, not one after the other. Each image has a region of its
own, of exactly a quarter, where theirs are cut from one pattern for a batch; outside of it nothing is compared. The
encoder's pooled features go to the bottleneck, where theirs ends in a convolution over all places, and nothing bounds
what is painted, as their tanh does.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks
from selfsup.parts.painting import downward, paintable, upward
from selfsup.parts.patch import pixels, seen_by
from selfsup.sections import Setup
from selfsup.views import Crop, Views

CELLS = 8  # a side of the noise whose hollows are regions
BORDER = 10.0  # weight of errors where context and prediction overlap


@final
class ContextEncoder(Method):
    """An image with a hole is completed, which takes knowledge of what things look like whole."""

    paper, family = "1604.07379", "reconstruction"

    class Hyper(Knobs):
        region: Literal["shape", "center"] = knob(
            "shape", "missing: a random shape, or the middle half of rows and columns", sweep=Choice("shape", "center")
        )
        share: float = knob(0.25, "share of pixels in a random shape", sweep=Range(0.1, 0.75), gt=0, lt=1)
        overlap: int = knob(7, "pixels at the middle's border that are seen and yet painted", ge=0)
        adversarial: float = knob(
            0.0, "weight of the adversarial loss", symbol="λ", sweep=Choice(0.0, 0.001), ge=0, lt=1
        )
        bottleneck: int = knob(4000, "channels of the vector that is painted from", sweep=Choice(100, 1000, 4000), gt=0)
        width: int = knob(64, "channels of the largest maps of decoder and discriminator", gt=0)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        draws = CELLS**2 if hyper.region == "shape" else 0
        return Views((Crop(scale=(hyper.crop_min, 1), resample="bilinear"),), draws=draws)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        size = setup.backbone.image_size
        side = size if hyper.region == "shape" else size // 2
        if size % 2 or not paintable(side):
            message = f"no decoder paints {side} pixels a side, which are not 4, 5, 6 or 7 doubled a number of times"
            yield SpecError(message, "backbone.image_size")
        if hyper.region == "shape":
            yield from checks.idle(hyper, "overlap", "region")
        elif 4 * hyper.overlap >= size:
            yield SpecError(f"an overlap of {hyper.overlap} pixels leaves no hole in images of {size}", "hyper.overlap")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        side = info.sizes[0] if hyper.region == "shape" else info.sizes[0] // 2
        layers = nn.Linear(self.backbone.dim, hyper.bottleneck), nn.BatchNorm1d(hyper.bottleneck), nn.LeakyReLU(0.2)
        self.bottleneck = nn.Sequential(*layers)
        self.decoder = upward(hyper.bottleneck, info.channels, side, hyper.width)
        if hyper.adversarial:
            self.discriminator = downward(info.channels, side, hyper.width)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        images = pixels(batch.views[0].value, self.backbone.patch)
        hole, weight = self._region(images, batch.draws)
        painted, target = self._painted(images, hole), self._middle(images)
        error = (weight * (painted.float() - target.float()).square()).mean()
        if not self.hyper.adversarial:
            return Out(error)
        deceived, judged = self._game(painted, target)
        loss = (1 - self.hyper.adversarial) * error + self.hyper.adversarial * deceived + judged
        return Out(loss, {"error": error, "deceived": deceived, "judged": judged})

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(lr_scale=0.1 if name.startswith("discriminator.") else 1.0)

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W): the image with its region as it is painted"""
        images = pixels(batch.views[0].value, self.backbone.patch)
        hole, _ = self._region(images, batch.draws)
        whole = images.clone()
        self._middle(whole).copy_(self._painted(images, hole))
        return torch.where(hole, whole, images)

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W)"""
        images = pixels(batch.views[0].value, self.backbone.patch)
        return images.masked_fill(self._region(images, batch.draws)[0], 0.0)

    def _painted(self, images: Tensor, hole: Tensor) -> Tensor:
        """-> (B, C, S, S): of the whole image, or of its middle"""
        seen = seen_by(images.masked_fill(hole, 0.0), self.backbone.patch)
        painted: Tensor = self.decoder(self.bottleneck(self.backbone.pooled(seen)))
        return painted

    def _middle(self, images: Tensor) -> Tensor:
        """-> (B, C, S, S): the part of the images that is painted"""
        if self.hyper.region == "shape":
            return images
        quarter = images.shape[2] // 4
        return images[..., quarter:-quarter, quarter:-quarter]

    def _region(self, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, 1, H, W) bool, the pixels that the encoder does not see; (B, 1, S, S), their errors' weights"""
        if self.hyper.region == "shape":
            hole = hollows(draws.view(-1, 1, CELLS, CELLS), images.shape[2], self.hyper.share)
            return hole, hole / hole.float().mean((1, 2, 3), keepdim=True)
        hole = torch.zeros_like(images[:, :1], dtype=torch.bool)
        inside = images.shape[2] // 4 + self.hyper.overlap
        hole[..., inside:-inside, inside:-inside] = True
        return hole, torch.where(self._middle(hole), 1.0, BORDER)

    def _game(self, painted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-> (), (): the loss of the painter before a discriminator that stands still, and that of the discriminator"""
        still = {name: value.detach().clone() for name, value in self.discriminator.state_dict().items()}
        deceived = _judgment(functional_call(self.discriminator, still, painted), 1.0)
        judged = _judgment(self.discriminator(target), 1.0) + _judgment(self.discriminator(painted.detach()), 0.0)
        return deceived, judged


def hollows(noise: Tensor, side: int, share: float) -> Tensor:
    """(B, 1, n, n) -> (B, 1, side, side) bool: where the noise, enlarged smoothly, is lowest, a share of all pixels."""
    smooth = F.interpolate(noise, size=side, mode="bicubic").flatten(1)
    deepest = smooth.kthvalue(max(1, round(share * side**2)), dim=1, keepdim=True).values
    return (smooth <= deepest).view(-1, 1, side, side)


def _judgment(logits: Tensor, truth: float) -> Tensor:
    """(B,) -> (): binary cross-entropy"""
    scores = logits.float()
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth))
