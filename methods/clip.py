"""CLIP: images and captions are embedded in one space, in which each is to find its own partner in the batch.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, arXiv:2103.00020.
Defaults are the paper's; mask_ratio: FLIP's, Li, Fan, Hu, Feichtenhofer and He, "Scaling language-image pre-training
via masking", CVPR 2023, arXiv:2212.00794: a share of the patches is left out, which is faster at the same quality.

Deviations from the authors' code: the image encoder is timm's, without a norm before its blocks, and its projection has
no bias as there; the GELU is exact, as in open_clip; crops are torchvision's, as in open_clip. FLIP's encoder has no
class token: here it stays, and its specs leave it out of features by `backbone: {pool: mean}`. FLIP trains a while
without masks at the end, which a second spec does that goes on with all weights, as scenes/clip_flip_tuned.
"""

from collections.abc import Iterator, Mapping
from typing import final

from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, knob
from selfsup.method import Batch, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.contrastive import paired_nce
from selfsup.sections import Setup
from selfsup.two_towers import Logits, PairKnobs, TwoTowers, accuracy, paired_views
from selfsup.views import Views


@final
class CLIP(TwoTowers):
    """Image and caption are to find each other among all of the batch."""

    paper, family = "2103.00020", "image-text"

    class Hyper(PairKnobs):
        temperature: float = knob(0.07, "at the beginning; it is learned", symbol="τ", sweep=Choice(0.03, 0.07), gt=0)
        scale_max: float = knob(100.0, "largest inverse of the temperature", ge=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return paired_views(hyper)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.mask_ratio:
            yield from checks.leaves_out(hyper.mask_ratio, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.logits = Logits(hyper.temperature, most=hyper.scale_max)

    def forward(self, batch: Batch) -> Out:
        image, text = self.pair(batch)
        loss = paired_nce(image, text, scale=self.logits.scale)
        return Out(loss, {"scale": self.logits.scale, "paired": accuracy(image, text)})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.logits.bound()
