"""Jigsaw: nine pieces of an image come in one of many orders, which the encoder's features of them must name.

Noroozi and Favaro, "Unsupervised learning of visual representations by solving jigsaw puzzles", ECCV 2016,
arXiv:1603.09246. Defaults are the paper's: 1000 orders of the largest mean Hamming distance, each piece normalized by
itself, 30 % of images gray; but puzzles have 240 pixels, into which patches of a ViT divide, not 255. The recipe is
VISSL's, of a ResNet-50, where the paper has an AlexNet.

Deviations from the authors' code: orders are chosen by the paper's algorithm anew, from a fixed beginning, so that they
are not the published lists. A piece's channels are not shifted against each other. The encoder's pooled features stand
for their convolutions, and hidden layers are batch-normalized, as VISSL's.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.heads import mlp
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import pixels, seen_by
from selfsup.parts.pretext import PUZZLE, at_each_piece, in_order, permutations, pieces, standardized
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class Jigsaw(Method):
    """Pieces of an image, each encoded by itself, tell together in which order they come."""

    paper, family = "1603.09246", "pretext"
    orders: Tensor  # (K, 9) int64

    class Hyper(Knobs):
        permutations: int = knob(1000, "orders to be told apart", sweep=Choice(100, 1000), ge=2, le=10000)
        puzzle: int = knob(240, "pixels a side of the image that is cut into nine cells", ge=12)
        piece: int = knob(64, "pixels a side of the piece of a cell", gt=0)
        standardize: bool = knob(True, "normalize each piece by its own mean and deviation", sweep=Choice(False, True))
        gray: float = knob(0.3, "share of images without color", sweep=Choice(0.0, 0.3, 0.66), ge=0, le=1)
        dim: int = knob(512, "channels of the embedding of a piece", sweep=Choice(128, 512), gt=0)
        hidden: int | None = knob(4096, "channels of the layer that sees all pieces; null: none", gt=0)
        crop_min: float = knob(0.6, "smallest crop, as a share of the image", sweep=Range(0.2, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(size=hyper.puzzle, scale=(hyper.crop_min, 1), ratio=(1, 1), resample="bilinear", gray=hyper.gray)
        return Views((crop,), draws=2 * PUZZLE + 1)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.pieces_fit(hyper.puzzle, hyper.piece, 0, setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.embed = nn.Sequential(*mlp(self.backbone.dim, hyper.dim, out="norm"), nn.ReLU())
        widths = [hyper.hidden] if hyper.hidden else []
        self.head = mlp(PUZZLE * hyper.dim, *widths, hyper.permutations, out="bias")
        self.register_buffer("orders", torch.tensor(permutations(hyper.permutations).tolist()), persistent=False)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        places, draw = torch.split(batch.draws, [2 * PUZZLE, 1], dim=1)
        images = pixels(batch.views[0].value, self.backbone.patch)
        cut = pieces(images, places, piece=self.hyper.piece)
        features = at_each_piece(self._embedded, standardized(cut) if self.hyper.standardize else cut)
        row, truth = in_order(features, self.orders, draw[:, 0])
        logits = self.head(row)
        return Out(cross_entropy(logits, truth), {"accuracy": accuracy(logits, truth)})

    def _embedded(self, cut: Tensor) -> Tensor:
        """(M, C, p, p) -> (M, dim)"""
        embedded: Tensor = self.embed(self.backbone.pooled(seen_by(cut, self.backbone.patch)))
        return embedded
