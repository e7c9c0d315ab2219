"""MaskFeat: a ViT sees rectangles of an image as mask tokens, and predicts the oriented gradients that are there.

Wei, Fan, Xie, Wu, Yuille and Feichtenhofer, "Masked feature prediction for self-supervised visual pre-training",
CVPR 2022, arXiv:2112.09133. Defaults are the paper's for images. Its masks of clips are mask: cube; the target is
then of the middle frame of each hidden token.

Deviations from the authors' code: a mask that its rectangles leave short of the ratio, by less than one patch in the
mean, is filled up with single patches, so that all samples have equally many; cubes leave more, see `CubeMask`. Clips
are seen by a ViT, theirs by an MViT, whose tokens overlap, and on whose last grid cubes are drawn.

B: batch, N: tokens, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from selfsup.cubemask import CubeMask
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Knobs, Range, knob
from selfsup.masks import AxisMask, FilledBlockMask, MaskRule
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial
from selfsup.parts.reconstruction import masked, masked_mse
from selfsup.parts.targets import HogTarget
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class MaskFeat(Method):
    """A ViT sees mask tokens in place of rectangles; a linear layer predicts histograms of gradients of those."""

    paper, family, backbones = "2112.09133", "reconstruction", ("vit",)
    modalities = "image", "video"
    separable = True

    class Hyper(Knobs):
        mask_ratio: float = knob(0.4, "share of patches replaced by a mask token", sweep=Range(0.2, 0.8), gt=0, lt=1)
        mask: Literal["block", "cube", "time"] = knob(
            "block", "replaced: rectangles, of clips in all frames; of clips alone: rectangles in some, or whole frames"
        )
        cell: int = knob(8, "pixels a side of a histogram", gt=0)
        crop_min: float = knob(0.5, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=mask_rule(hyper)),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_cells("cell", hyper.cell, setup)
        if hyper.mask != "block" and setup.modality == "image":
            yield SpecError(f"images have no mask: {hyper.mask}; use mask: block", "hyper.mask", "input")
            return
        yield from checks.mask_leaves_both(mask_rule(hyper), hyper.mask_ratio, setup.grid)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.truncated_normal(trunk)
        initial.truncated_patches(trunk)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.target = HogTarget(self.backbone, cell=hyper.cell)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.backbone.dim), std=0.02))
        self.head = nn.Linear(self.backbone.dim, self.target.values)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked(batch)
        hidden = self._features(batch).take_along_dim(mask.hide[..., None], dim=1)
        return Out(masked_mse(self.head(hidden), self.target.of(tokens, mask.hide)))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): the edges that it predicts, as strokes."""
        tokens, _ = masked(batch)
        return self.target.pixels(self.head(self._features(batch)).float(), tokens)

    def _features(self, batch: Batch) -> Tensor:
        """-> (B, N, D), in the order of the grid"""
        tokens, mask = masked(batch)
        features: Tensor = self.backbone(tokens, cover=(mask.removed, self.mask_token))
        return features[:, self.backbone.num_prefix :]


def mask_rule(hyper: MaskFeat.Hyper) -> MaskRule:
    """Return the rule by which patches are replaced."""
    if hyper.mask == "block":
        return FilledBlockMask(hyper.mask_ratio)
    if hyper.mask == "time":
        return AxisMask((hyper.mask_ratio,))
    return CubeMask(hyper.mask_ratio)
