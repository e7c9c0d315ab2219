"""Contrastive random walk: patches of a clip find their way through its frames, and back to where they began.

Jabri, Owens and Efros, "Space-time correspondence as a contrastive random walk", NeurIPS 2020, arXiv:2006.14613.
Patches that overlap by half are nodes of a graph, whose edges go from each frame of tokens to the next one and back.
Defaults are those of the authors' README, whose temperature is lower than the paper's since a fault in their code was
mended. As in that code, walks that turn after two steps or more are averaged.

Deviations from the authors' code: frames of a clip are cropped alike, theirs each by itself. A part of a patch whose
shape does not fit it is cut off, where theirs is drawn again. A ViT's pooled features of each patch, of one token's
frames, stand for those of a ResNet-18.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import noise
from selfsup.parts.patch import patchify, pixels, sides_of
from selfsup.parts.pretext import at_each_piece, inner_boxes, zoomed
from selfsup.parts.walks import cycles, transitions
from selfsup.sections import Setup
from selfsup.views import Crop, Views

TINY = 1e-20  # added to probabilities


@final
class RandomWalk(Method):
    """A walk from patch to patch by likeness, out through the frames and back again, ends where it began."""

    paper, family, backbones, modalities = "2006.14613", "contrastive", ("vit",), ("video",)
    separable = True

    class Hyper(Knobs):
        grid: int = knob(7, "patches along each side of a frame, each half over the next one", sweep=Choice(5, 7), ge=2)
        temperature: float = knob(0.05, "of steps", symbol="τ", sweep=Range(0.01, 0.5, log=True), gt=0)
        dropout: float = knob(0.1, "share of edges that are dropped", sweep=Choice(0.0, 0.1, 0.3), ge=0, lt=1)
        dim: int = knob(128, "channels of the space that patches are compared in", sweep=Choice(64, 128), gt=0)
        part_min: float = knob(0.7, "smallest part of a patch that is seen, as a share of its area", gt=0, le=0.9)
        crop_min: float = knob(0.8, "smallest crop, as a share of the frame", sweep=Range(0.2, 0.95), gt=0, le=0.95)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 0.95), ratio=(0.7, 1.3), flip=0.0, resample="bilinear")
        return Views((crop,), draws=4)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        size, patch = setup.backbone.image_size, setup.backbone.patch
        if size % (hyper.grid + 1) or (patch and _side(size, hyper.grid) % patch):
            message = f"{hyper.grid} patches along {size} pixels, each half over the next one, are of no whole tokens"
            yield SpecError(message, "hyper.grid", "backbone.image_size", "backbone.patch_size")
        if setup.grid is not None and setup.grid[0] < 3:
            message = f"walks go over {setup.grid[0]} times, the frames of a token each; expected 3 or more"
            yield SpecError(message, "input.video.frames", "input.video.tubelet")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = nn.Linear(self.backbone.dim, hyper.dim)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        parts, edges = torch.split(batch.draws, 2, dim=1)
        nodes = self._nodes(pixels(batch.views[0].value, self.backbone.patch), parts)
        _, times, number, _ = nodes.shape
        dropped = noise.uniform(edges, (2, times - 1, number, number)) < self.hyper.dropout
        ends = cycles(*transitions(nodes, dropped, temperature=self.hyper.temperature))
        is_back = ends[-1].argmax(dim=-1) == torch.arange(number, device=ends.device)
        loss = -(ends.diagonal(dim1=-2, dim2=-1) + TINY).log().mean()
        return Out(loss, {"accuracy": is_back.float().mean()})

    def _nodes(self, clips: Tensor, draws: Tensor) -> Tensor:
        """(B, C, T, S, S), (B, 2) -> (B, times, grid * grid, dim): unit vectors"""
        length, side = sides_of(self.backbone.patch, 3)[0], _side(clips.shape[-1], self.hyper.grid)
        cut = clips.unfold(2, length, length).unfold(3, side, side // 2).unfold(4, side, side // 2)
        times = cut.shape[2]
        patches = cut.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(1, 3)  # (B, times * N, C, length, side, side)
        boxes = inner_boxes(noise.uniform(draws, (patches.shape[1], 4)), side, (self.hyper.part_min, 0.9))
        embedded = at_each_piece(self._embedded, zoomed(patches, boxes))
        return F.normalize(embedded.float(), dim=2).view(len(clips), times, -1, self.hyper.dim)

    def _embedded(self, patches: Tensor) -> Tensor:
        """(M, C, length, side, side) -> (M, dim)"""
        embedded: Tensor = self.head(self.backbone.pooled(patchify(patches, self.backbone.patch)))
        return embedded


def _side(size: int, grid: int) -> int:
    """Return the pixels a side of a patch, of so many that overlap by half along a frame's side."""
    return 2 * (size // (grid + 1))
