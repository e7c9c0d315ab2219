"""SALT: an encoder predicts, of blocks that it misses, the features that a trained and frozen one has of them.

Li, Huang, Li, Malach, Susskind, Thilak and Littwin, "Rethinking JEPA: compute-efficient video SSL with frozen
teachers", 2025, arXiv:2509.24317. Its first stage, a teacher that reconstructs pixels, is the spec's `teacher`, such as
in1k/mae; this is the second, which predicts by V-JEPA's absolute error. Without an EMA, the teacher's size is free.

Deviations from the authors' code: none is known to be public. The paper is of video; masks and predictor are I-JEPA's,
of images, in place of V-JEPA's, which reach through time, and the teacher has a mask of its own.

B: batch, N: tokens, S: blocks, M: tokens of a block, D: channels of the teacher.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import final

import torch.nn.functional as F

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Knobs, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, latent
from selfsup.parts.predictor import Predictor
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class SALT(Method):
    """A narrow predictor is asked, place by place, for a frozen teacher's features of blocks that are missing."""

    paper, family, backbones = "2509.24317", "latent prediction", ("vit",)
    separable = True
    learns_from = "features"
    initialize = staticmethod(partial(initial.beit, cut=100.0))

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
        predictor_heads: int = knob(12, **latent.HEADS)
        crop_min: float = knob(0.3, **latent.CROP_MIN)

        _whole_heads = checks.whole_heads("predictor")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        mask = latent.blocks(hyper)
        return Views((Crop(scale=(hyper.crop_min, 1.0), flip=0.0, resample="bilinear", mask=mask),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from latent.context_left(hyper, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert info.teacher, "it learns from a trained encoder's features"
        self.teacher = info.teacher
        sizes = {"width": hyper.predictor_width, "depth": hyper.predictor_depth, "heads": hyper.predictor_heads}
        self.predictor = Predictor(self.backbone, **sizes, values=self.teacher.dim)

    def forward(self, batch: Batch) -> Out:
        tokens, mask, numbers = latent.masked(batch)
        _, asked = self.predictor(self.backbone(tokens, mask.keep), mask.keep, numbers)
        features = self.teacher.features(tokens, tokens.grid)[1]
        wanted = F.layer_norm(features, features.shape[-1:]).take_along_dim(numbers.flatten(1)[..., None], dim=1)
        return Out(F.l1_loss(asked.flatten(1, 2).float(), wanted))
