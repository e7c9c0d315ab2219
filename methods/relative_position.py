"""Relative position: an encoder tells where a piece of an image lies beside the piece in the middle.

Doersch, Gupta and Efros, "Unsupervised visual representation learning by context prediction", ICCV 2015,
arXiv:1505.05192. Defaults are the paper's: pieces of 96 pixels, 48 apart, each moved by up to 7, all but one of whose
channels are dropped. The recipe is MMSelfSup's, of a ResNet-50, where the paper has an AlexNet.

Deviations from the authors' code: an image gives the eight pairs of one grid of 3 by 3 with its middle, not those of
all neighbors on four larger grids. Dropped channels are flat, without noise of half a gray level, and no piece loses
resolution. The encoder's pooled features stand for their fc6, and the hidden layers above are both batch-normalized.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.heads import mlp
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import pixels, seen_by
from selfsup.parts.pretext import PUZZLE, at_each_piece, one_channel, pieces, standardized
from selfsup.sections import Setup
from selfsup.views import Crop, Views

MIDDLE, NEIGHBORS = PUZZLE // 2, PUZZLE - 1


@final
class RelativePosition(Method):
    """Two neighboring pieces tell how they lie only to who knows the object that they are parts of."""

    paper, family = "1505.05192", "pretext"

    class Hyper(Knobs):
        puzzle: int = knob(432, "pixels a side of the image that is cut into nine cells", ge=12)
        piece: int = knob(96, "pixels a side of the piece of a cell", gt=0)
        jitter: int = knob(14, "pixels that a piece may move in all, around the middle of its cell", ge=0)
        colors: bool = knob(False, "see all channels of a piece, not one alone", sweep=Choice(False, True))
        gray: float = knob(0.0, "share of images without color", sweep=Choice(0.0, 0.66), ge=0, le=1)
        hidden: int = knob(4096, "channels of a hidden layer of the head", sweep=Choice(1024, 4096), gt=0)
        layers: int = knob(2, "hidden layers of the head", sweep=Choice(1, 2), ge=1, le=100)
        crop_min: float = knob(0.41, "smallest crop, as a share of the image", sweep=Range(0.2, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        scale = hyper.crop_min, 1.0
        crop = Crop(size=hyper.puzzle, scale=scale, ratio=(1, 1), flip=0.0, resample="bilinear", gray=hyper.gray)
        return Views((crop,), draws=3 * PUZZLE)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.pieces_fit(hyper.puzzle, hyper.piece, hyper.jitter, setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = mlp(2 * self.backbone.dim, *[hyper.hidden] * hyper.layers, NEIGHBORS, out="bias")
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        features = at_each_piece(self._pooled, self._cut(batch))
        neighbors = torch.cat([features[:, :MIDDLE], features[:, MIDDLE + 1 :]], dim=1)
        middle = features[:, MIDDLE, None].expand_as(neighbors)
        logits = self.head(torch.cat([neighbors, middle], dim=2).transpose(0, 1).flatten(0, 1))
        truth = torch.arange(NEIGHBORS, device=logits.device).repeat_interleave(len(batch.sample))
        return Out(cross_entropy(logits, truth), {"accuracy": accuracy(logits, truth)})

    def _cut(self, batch: Batch) -> Tensor:
        """-> (B, 9, C, p, p): each piece by its own mean and deviation"""
        places, channels = torch.split(batch.draws, [2 * PUZZLE, PUZZLE], dim=1)
        images = pixels(batch.views[0].value, self.backbone.patch)
        cut = pieces(images, places, piece=self.hyper.piece, jitter=self.hyper.jitter)
        return standardized(cut if self.hyper.colors else one_channel(cut, channels))

    def _pooled(self, cut: Tensor) -> Tensor:
        """(M, C, p, p) -> (M, D)"""
        pooled: Tensor = self.backbone.pooled(seen_by(cut, self.backbone.patch))
        return pooled
