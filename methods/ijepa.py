"""I-JEPA: features of several blocks of an image are predicted from those of one large block around them.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun and Ballas, "Self-supervised learning from images with a
joint-embedding predictive architecture", CVPR 2023, arXiv:2301.08243. Defaults are the paper's for ViT-H/14. `dense` is
the weight of a term of V-JEPA 2.1 (arXiv 2603.14482) on visible patches, which I-JEPA does not have.

With mask: tubes it is V-JEPA (arXiv 2404.08471), on clips: 8 targets of 0.15 of a frame, predicted together, and of the
same clip 2 long_targets of long_share, by absolute errors (beta: 0).

Deviations from the authors' code: all samples of a step see as many patches as the smallest of 128 masks that are
drawn for it, where theirs see as many as the smallest of a GPU; a sample that would see less takes the largest of these
masks. The dense term is at one depth, and of the targets' kind of error, where V-JEPA 2.1's is of absolute errors at
several.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, final

import torch
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import MaskRule
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, latent
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.predictor import Predictor
from selfsup.parts.schedules import ramp
from selfsup.sections import Setup
from selfsup.tubemask import TubeBlocksMask
from selfsup.views import Crop, Views


@final
class IJEPA(Method):
    """A narrow predictor is asked, place by place, for an EMA teacher's features of blocks that the encoder misses."""

    paper, family, backbones = "2301.08243", "latent prediction", ("vit",)
    modalities = ("image", "video")
    separable = True
    evaluated = "teacher"
    initialize = staticmethod(partial(initial.beit, cut=100.0))
    teacher: TokenEncoder

    class Hyper(Knobs):
        mask: Literal["blocks", "tubes"] = knob(
            "blocks", "predicted: blocks, each by itself, from a context; or all together, in all frames, from all else"
        )
        targets: int = knob(4, **latent.TARGETS)
        target_min: float = knob(0.15, **latent.TARGET_MIN)
        target_max: float = knob(0.2, **latent.TARGET_MAX)
        aspect_min: float = knob(0.75, **latent.ASPECT_MIN)
        aspect_max: float = knob(1.5, **latent.ASPECT_MAX)
        context_min: float = knob(0.85, **latent.CONTEXT_MIN)
        context_max: float = knob(1.0, **latent.CONTEXT_MAX)
        min_keep: int = knob(10, **latent.MIN_KEEP)
        long_targets: int = knob(0, "large blocks of a second mask of tubes; 0: there is none", ge=0, le=100)
        long_share: float = knob(0.7, "area of each, as a share of a frame", sweep=Range(0.4, 0.8), gt=0, lt=1)
        beta: float = knob(1.0, "where the loss turns from squares to absolute errors", symbol="β", ge=0)
        predictor_width: int = knob(384, **latent.WIDTH)
        predictor_depth: int = knob(12, **latent.DEPTH)
        predictor_heads: int = knob(16, **latent.HEADS)
        momentum: float = knob(0.996, **latent.MOMENTUM)
        dense: float = knob(0.0, "weight of V-JEPA 2.1's term on visible patches", sweep=Choice(0.0, 0.5), ge=0)
        crop_min: float = knob(0.3, **latent.CROP_MIN)

        _whole_heads = checks.whole_heads("predictor")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        first, *others = masks(hyper)
        flip = 0.5 * (hyper.mask == "tubes")  # as in V-JEPA's code, none in I-JEPA's
        crop = Crop(scale=(hyper.crop_min, 1.0), flip=flip, resample="bilinear", mask=first)
        return Views((crop, *(replace(crop, mask=mask, of=0) for mask in others)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.mask == "blocks":
            yield from checks.idle(hyper, "long_targets", "mask")
            if len(setup.sizes) != 2:
                yield SpecError("blocks by themselves are of images; use mask: tubes", "hyper.mask", "input")
            yield from latent.context_left(hyper, setup.grid)
        elif setup.grid and not all(mask.typical(setup.grid)[0] for mask in masks(hyper)):
            message = f"tubes leave nothing of {' x '.join(map(str, setup.grid))} tokens; use smaller patches or blocks"
            yield SpecError(message, "hyper.targets", "hyper.long_targets", "backbone.patch_size")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        sizes = {"width": hyper.predictor_width, "depth": hyper.predictor_depth, "heads": hyper.predictor_heads}
        self.predictor = Predictor(self.backbone, **sizes)
        self.teacher = ema_copy(self.backbone)
        self.momentum, self.dense, self.beta = hyper.momentum, hyper.dense, hyper.beta

    def forward(self, batch: Batch) -> Out:
        tokens = latent.masked_view(batch.views[0])[0]
        features = latent.targets(self.teacher, tokens)
        masked, visible = (torch.stack(terms).mean() for terms in zip(*self._terms(batch, features), strict=True))
        if not self.dense:
            return Out(masked)
        return Out(masked + self.dense * visible, {"masked": masked, "visible": visible})

    def _terms(self, batch: Batch, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, N, D) of the first view, whose part all show -> the error at targets and at visible tokens, by view"""
        for view in batch.views:
            tokens, mask, numbers = latent.masked_view(view)
            visible, asked = self.predictor(self.backbone(tokens, mask.keep), mask.keep, numbers)
            dense = features.new_zeros(())
            if self.dense:
                dense = latent.at_visible(visible, features, mask, tokens.grid, self.beta)
            yield latent.at_targets(asked, features, numbers, self.beta), dense

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        ema_update(self.teacher, self.backbone, ramp(t, self.momentum, 1.0, until=1.0))


def masks(hyper: IJEPA.Hyper) -> list[MaskRule]:
    """Return the rules by which targets of a clip or image are drawn, one for each time that it is encoded."""
    if hyper.mask == "blocks":
        return [latent.blocks(hyper)]
    aspect = hyper.aspect_min, hyper.aspect_max
    tubes = [TubeBlocksMask(hyper.targets, (hyper.target_min, hyper.target_max), aspect)]
    if hyper.long_targets:
        tubes.append(TubeBlocksMask(hyper.long_targets, (hyper.long_share, hyper.long_share), aspect))
    return [*tubes]
