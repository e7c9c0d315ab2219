"""FlexPredict (StoP): I-JEPA whose predictor is told the places of targets with noise.

Bar, Bordes, Shocher, Assran, Vincent, Ballas, Darrell, Globerson and LeCun, "Predicting masked tokens in stochastic
locations improves masked image modeling", 2023, arXiv:2308.00566; at ICML 2024 as "Stochastic positional embeddings
improve masked image modeling". Defaults are the authors' for ViT-B/16.

Deviations from the authors' code: a learned mask token stands at targets, as in the paper, where theirs has the bias of
the predictor's first layer instead; all samples of a step see as many patches as the smallest of 128 masks that are
drawn for it, as in I-JEPA here. The deviation of noise is the code's; the paper's equations make that its variance.

B: batch, S: sets of targets, M: tokens of a set, D: channels.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import final

import torch
import torch.nn.functional as F

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, latent, noise
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.predictor import Predictor
from selfsup.parts.schedules import ramp
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class FlexPredict(Method):
    """The layer that embeds what the encoder sees embeds the noise, too: to shrink it, it would have to see less."""

    paper, family, backbones = "2308.00566", "latent prediction", ("vit",)
    separable = True
    evaluated = "teacher"
    initialize = staticmethod(partial(initial.beit, cut=100.0))
    teacher: TokenEncoder

    class Hyper(Knobs):
        noise: float = knob(
            0.25, "deviation of the places' noise, before its embedding", symbol="σ", sweep=Choice(0.0, 0.25, 0.5), ge=0
        )
        targets: int = knob(4, **latent.TARGETS)
        target_min: float = knob(0.15, **latent.TARGET_MIN)
        target_max: float = knob(0.2, **latent.TARGET_MAX)
        aspect_min: float = knob(0.75, **latent.ASPECT_MIN)
        aspect_max: float = knob(1.5, **latent.ASPECT_MAX)
        context_min: float = knob(0.85, **latent.CONTEXT_MIN)
        context_max: float = knob(1.0, **latent.CONTEXT_MAX)
        min_keep: int = knob(10, **latent.MIN_KEEP)
        predictor_width: int = knob(384, **latent.WIDTH)
        predictor_depth: int = knob(6, **latent.DEPTH)
        predictor_heads: int = knob(12, **latent.HEADS)
        momentum: float = knob(0.996, **latent.MOMENTUM)
        crop_min: float = knob(0.3, **latent.CROP_MIN)

        _whole_heads = checks.whole_heads("predictor")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 1.0), resample="bilinear", gray=0.2, blur=0.5, mask=latent.blocks(hyper))
        return Views((crop,), draws=2)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from latent.context_left(hyper, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        sizes = {"width": hyper.predictor_width, "depth": hyper.predictor_depth, "heads": hyper.predictor_heads}
        self.predictor = Predictor(self.backbone, **sizes)
        self.teacher = ema_copy(self.backbone)
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        tokens, mask, numbers = latent.masked(batch)
        features = latent.targets(self.teacher, tokens)
        drawn = noise.gaussian(batch.draws, (*numbers.shape[1:], self.backbone.dim))
        shift = F.linear(self.hyper.noise * drawn, self.predictor.embed.weight)  # A of eq. 4, tied to B
        _, asked = self.predictor(self.backbone(tokens, mask.keep), mask.keep, numbers, shift)
        return Out(latent.at_targets(asked, features, numbers))

    def after_step(self, t: float, aux: Mapping[str, torch.Tensor]) -> None:  # noqa: ARG002
        ema_update(self.teacher, self.backbone, ramp(t, self.hyper.momentum, 1.0, until=1.0))
