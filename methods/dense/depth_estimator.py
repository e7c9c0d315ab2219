"""Depth estimator: a linear layer on each token shares its depth among bins, and the encoder is trained with it.

The linear head and the loss of DINOv2 (arXiv:2304.07193) on NYU. A crop that is magnified shows things nearer: its
depths are divided by the magnification, of up to 1.5 a side, as in Eigen, Puhrsch and Fergus, "Depth map prediction
from a single image using a multi-scale deep network", NeurIPS 2014, arXiv:1406.2283, section 3.4.
"""

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.depth_bins import LEAST, DepthBins
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, MapSpec, Views


@final
class DepthEstimator(Method):
    """A linear layer on each token tells its depth, in meters; pixels of unknown depth are passed over."""

    paper, family = "2304.07193", "baseline"

    class Hyper(Knobs):
        bins: int = knob(256, "bins of depth", ge=2)
        most: float = knob(10.0, "meters of the last bin; pixels beyond it are left out", gt=LEAST)
        crop_min: float = knob(0.44, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), maps=(MapSpec("depth"),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.bins, self.side = DepthBins(hyper.bins, hyper.most), info.sizes[0]
        self.head = nn.Linear(self.backbone.dim, hyper.bins)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        [map_], view = batch.maps, batch.views[0]
        guess = self._guess(view.value, map_.shape[-1])
        return Out(self.bins.loss(guess, map_ / magnification(view.box)[:, None, None]))

    def predict(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, S * S, 1): the depth of each pixel in meters, row by row"""
        return self._guess(view, self.side).flatten(1)[..., None]

    def _guess(self, view: Tokens | Tensor, side: int) -> Tensor:
        logits = self.head(self.backbone.spatial(view).flatten(2).mT)
        return self.bins.guess(logits.float(), side)


def magnification(box: Tensor) -> Tensor:
    """(B, 7), as of a View -> (B,): how many times as large things are as in a view of the whole image"""
    height, width, _, *whole = box[:, 2:].unbind(1)
    return (whole[0] * whole[1] / (height * width)).sqrt()
