"""I-JEPA: features of several blocks of an image are predicted from those of one large block around them.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun and Ballas, "Self-supervised learning from images with a
joint-embedding predictive architecture", CVPR 2023, arXiv:2301.08243. Defaults are the paper's for ViT-H/14. `dense` is
the weight of a term of V-JEPA 2.1 (arXiv 2603.14482) on visible patches, which I-JEPA does not have.

Deviations from the authors' code: all samples of a step see as many patches as the smallest of 128 masks that are
drawn for it, where theirs see as many as the smallest of a GPU; a sample that would see less takes the largest of these
masks. The dense term is at one depth, where V-JEPA 2.1's is at several.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import final

import torch

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, latent
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.predictor import Predictor
from selfsup.parts.schedules import ramp
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class IJEPA(Method):
    """A narrow predictor is asked, place by place, for an EMA teacher's features of blocks that the encoder misses."""

    paper, family, backbones = "2301.08243", "latent prediction", ("vit",)
    separable = True
    evaluated = "teacher"
    initialize = staticmethod(partial(initial.beit, cut=100.0))
    teacher: TokenEncoder

    class Hyper(Knobs):
        targets: int = knob(4, **latent.TARGETS)
        target_min: float = knob(0.15, **latent.TARGET_MIN)
        target_max: float = knob(0.2, **latent.TARGET_MAX)
        aspect_min: float = knob(0.75, **latent.ASPECT_MIN)
        aspect_max: float = knob(1.5, **latent.ASPECT_MAX)
        context_min: float = knob(0.85, **latent.CONTEXT_MIN)
        context_max: float = knob(1.0, **latent.CONTEXT_MAX)
        min_keep: int = knob(10, **latent.MIN_KEEP)
        predictor_width: int = knob(384, **latent.WIDTH)
        predictor_depth: int = knob(12, **latent.DEPTH)
        predictor_heads: int = knob(16, **latent.HEADS)
        momentum: float = knob(0.996, **latent.MOMENTUM)
        dense: float = knob(0.0, "weight of V-JEPA 2.1's term on visible patches", sweep=Choice(0.0, 0.5), ge=0)
        crop_min: float = knob(0.3, **latent.CROP_MIN)

        _whole_heads = checks.whole_heads("predictor")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        mask = latent.blocks(hyper)
        return Views((Crop(scale=(hyper.crop_min, 1.0), flip=0.0, resample="bilinear", mask=mask),))  # as in its code

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from latent.context_left(hyper, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        sizes = {"width": hyper.predictor_width, "depth": hyper.predictor_depth, "heads": hyper.predictor_heads}
        self.predictor = Predictor(self.backbone, **sizes)
        self.teacher = ema_copy(self.backbone)
        self.momentum, self.dense = hyper.momentum, hyper.dense

    def forward(self, batch: Batch) -> Out:
        tokens, mask, numbers = latent.masked(batch)
        features = latent.targets(self.teacher, tokens)
        visible, asked = self.predictor(self.backbone(tokens, mask.keep), mask.keep, numbers)
        loss = latent.at_targets(asked, features, numbers)
        if not self.dense:
            return Out(loss)
        dense = latent.at_visible(visible, features, mask, tokens.grid)
        return Out(loss + self.dense * dense, {"masked": loss, "visible": dense})

    def after_step(self, t: float, aux: Mapping[str, torch.Tensor]) -> None:  # noqa: ARG002
        ema_update(self.teacher, self.backbone, ramp(t, self.momentum, 1.0, until=1.0))
