"""Cubic puzzles: four pieces of a clip, side by side or one after the other, come in an order that is to be named.

Kim, Cho and Kweon, "Self-supervised video representation learning with space-time cubic puzzles", AAAI 2019,
arXiv:1811.09795. A clip is cut into four cells in time and two by two in the picture; a puzzle is of the four cells of
one time, or of one place. Defaults are the paper's: of cells of 32 frames of 112 pixels a side, pieces have 16 of 80,
anywhere within, so that no edge or motion goes on from one to the next; one of three channels is seen in place of all,
so that colors tell nothing.

There is no authors' code to compare with. Cells and pieces are as in an implementation by others, which cuts a puzzle
of each kind from every clip, where here it is one of either. The rest follows the paper from memory: puzzles in space
and in time share one head of 24 orders, with one hidden layer. A second head of the authors', which tells how pieces
are turned, is not here. A ViT's pooled features of each piece stand for those of a 3D ResNet-18.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.heads import mlp
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import patchify, pixels, sides_of
from selfsup.parts.pretext import at_each_piece, in_order, parts_at, permutations, replicated
from selfsup.sections import Setup
from selfsup.views import Crop, Views

CELLS = (4, 2, 2)  # of a clip, in time, down and across
PIECES, ORDERS = 4, 24
IN_TIME = {"space": 0.0, "time": 1.0, "both": 0.5}  # share of puzzles


@final
class CubicPuzzles(Method):
    """Pieces of a clip, each encoded by itself, tell together in which order they come, in space or in time."""

    paper, family, backbones, modalities = "1811.09795", "pretext", ("vit",), ("video",)
    separable = True
    orders: Tensor  # (ORDERS, PIECES) int64

    class Hyper(Knobs):
        puzzles: Literal["both", "space", "time"] = knob(
            "both", "pieces of one time, of one place, or of either", sweep=Choice("space", "time", "both")
        )
        side: float = knob(0.71, "side of a piece, as a share of its cell's, in whole tokens", gt=0, le=1)
        length: float = knob(0.5, "its frames, as a share of its cell's, in whole tokens", gt=0, le=1)
        colors: bool = knob(False, "see all channels, not one in place of all", sweep=Choice(False, True))
        hidden: int | None = knob(512, "channels of the layer that sees all pieces; null: none", gt=0)
        crop_min: float = knob(0.6, "smallest crop, as a share of the frame", sweep=Range(0.2, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 1), ratio=(1, 1), resample="bilinear")
        return Views((crop,), draws=4 + 3 * PIECES)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        grid = setup.grid
        if grid is not None and any(size < cells for size, cells in zip(grid, CELLS, strict=False)):
            tokens, cells = " x ".join(map(str, grid)), " x ".join(map(str, CELLS))
            message = f"a clip of {tokens} tokens does not divide into {cells} cells"
            yield SpecError(message, "input.video.frames", "input.video.tubelet", "backbone.patch_size")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        widths = [hyper.hidden] if hyper.hidden else []
        self.head = mlp(PIECES * self.backbone.dim, *widths, ORDERS, norm=False, out="bias")
        self.register_buffer("orders", torch.tensor(permutations(ORDERS, PIECES).tolist()), persistent=False)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        kind, slot, order, channel, *places = batch.draws.unbind(1)
        clips = pixels(batch.views[0].value, self.backbone.patch)
        cells = puzzle(kind < IN_TIME[self.hyper.puzzles], slot)
        cut = self._cut(clips if self.hyper.colors else replicated(clips, channel), cells, torch.stack(places, dim=1))
        row, truth = in_order(at_each_piece(self._pooled, cut), self.orders, order)
        logits = self.head(row)
        return Out(cross_entropy(logits, truth), {"accuracy": accuracy(logits, truth)})

    def _cut(self, clips: Tensor, cells: Tensor, draws: Tensor) -> Tensor:
        """(N, C, T, S, S), (N, PIECES, 3), (N, PIECES * 3) -> (N, PIECES, C, t, p, p): somewhere within these cells"""
        whole = [size // number for size, number in zip(clips.shape[2:], CELLS, strict=True)]
        shares, tokens = (self.hyper.length, self.hyper.side, self.hyper.side), sides_of(self.backbone.patch, 3)
        sides = [_side(*axis) for axis in zip(whole, shares, tokens, strict=True)]
        axes = zip(cells.unbind(2), draws.view(-1, PIECES, 3).unbind(2), whole, sides, strict=True)
        corner = [at * cell + (draw * (cell - side + 1)).long().clamp_max(cell - side) for at, draw, cell, side in axes]
        return parts_at(clips, torch.stack(corner, dim=2), tuple(sides))

    def _pooled(self, cut: Tensor) -> Tensor:
        """(M, C, t, p, p) -> (M, D)"""
        pooled: Tensor = self.backbone.pooled(patchify(cut, self.backbone.patch))
        return pooled


def puzzle(in_time: Tensor, draws: Tensor) -> Tensor:
    """(N,) bool, (N,) in [0, 1) -> (N, PIECES, 3): the cells of a place from first to last, or of a time row by row."""
    slot = (draws * PIECES).long().clamp_max(PIECES - 1)[:, None].expand(-1, PIECES)
    number = torch.arange(PIECES, device=draws.device).expand_as(slot)
    after = torch.stack([number, slot // 2, slot % 2], dim=2)
    beside = torch.stack([slot, number // 2, number % 2], dim=2)
    return torch.where(in_time[:, None, None], after, beside)


def _side(cell: int, share: float, token: int) -> int:
    """Return the points of a piece along an axis: the share of a cell's in whole tokens, but one at least."""
    return max(1, min(cell // token, round(share * cell / token))) * token
