"""Object detector: ViTDet's Mask R-CNN on the tokens of a plain ViT, and the encoder is trained with it.

Li, Mao, Girshick and He, "Exploring plain vision transformer backbones for object detection", ECCV 2022,
arXiv:2203.16527, of torchvision's parts; `parts.detector` says what differs from the authors'. Losses are those of each
image, averaged, where theirs are of the images of a GPU: so they do not depend on the number of processes. Whatever the
precision, the detector computes in fp32: boxes that torchvision makes in bf16 are multiples of 4 beyond pixel 512.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.detector_knobs import DetectorKnobs
from selfsup.encoder import Encoder
from selfsup.knob import Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.detector import Detector
from selfsup.parts.objects import objects_of
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, MapSpec, Views

AT_ONCE = 8  # images that are detected in together
DRAWS, WORD = 2, 2**16  # numbers in [0, 1) that seed the choice of regions: 16 bits of each


@final
class ObjectDetector(Method):
    """A Mask R-CNN on tokens of the encoder learns boxes, classes and masks of objects."""

    paper, family = "2203.16527", "baseline"
    separable = True

    class Hyper(DetectorKnobs):
        classes: int = knob(80, "of objects: more than the largest number in the maps", ge=1)
        crop_min: float = knob(0.25, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        maps = MapSpec("seg", hyper.classes), MapSpec("inst")
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), draws=DRAWS, maps=maps)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.side = info.sizes[0]
        self.detector = Detector(self.backbone.dim, hyper.classes, **hyper.sizes)

    def forward(self, batch: Batch) -> Out:
        tokens = self._tokens(batch.views[0].value)
        if tokens.is_meta:
            return Out(self.detector.traced(tokens))
        maps, seeds = torch.stack(batch.maps, dim=1).cpu().numpy(), (batch.draws.cpu() * WORD).long().tolist()
        losses, device = [], tokens.device
        with (
            torch.autocast(device.type, enabled=False),
            torch.random.fork_rng([device] if tokens.is_cuda else []),  # torchvision draws from the common one
        ):
            for image, own, (high, low) in zip(tokens.float(), maps, seeds, strict=True):
                torch.manual_seed(high * WORD + low)
                losses.append(self.detector.loss(image[None], [objects_of(own)]))
        return Out(torch.stack(losses).mean())

    def predict(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, MOST, PACKED): the objects of each image, as `parts.objects` packs them"""
        parts = torch.split(self._tokens(view), AT_ONCE)
        return torch.cat([self.detector.packed(part, self.side) for part in parts])

    def _tokens(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, T, D)"""
        tokens: Tensor = self.backbone.spatial(view).flatten(2).mT
        return tokens
