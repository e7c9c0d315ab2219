"""SigLIP: of any image and any caption of a batch, a logistic regression of their cosine says whether they are a pair.

Zhai, Mustafa, Kolesnikov and Beyer, "Sigmoid loss for language image pre-training", ICCV 2023, arXiv:2303.15343. Its
text encoder reads in both directions: `input: {text: {causal: false, length: 64}}`. Defaults are the paper's.

Deviations from the authors' code: projections are CLIP's, and both encoders end in them, where theirs pools patches by
attention, and text through the last of 64 tokens, padding included; here it is the last that is none. Crops are CLIP's.
"""

from collections.abc import Iterator, Mapping
from typing import final

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, knob
from selfsup.method import Batch, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.contrastive import paired_sigmoid
from selfsup.sections import Setup
from selfsup.two_towers import Logits, PairKnobs, TwoTowers, accuracy, paired_views
from selfsup.views import Views


@final
class SigLIP(TwoTowers):
    """Each pair is judged by itself, whatever the others are: no softmax over the batch."""

    paper, family = "2303.15343", "image-text"

    class Hyper(PairKnobs):
        temperature: float = knob(0.1, "at the beginning; it is learned", symbol="τ", sweep=Choice(0.03, 0.1), gt=0)
        bias: float = knob(-10.0, "of logits at the beginning; it is learned", symbol="b", sweep=Choice(-10.0, 0.0))

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return paired_views(hyper)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.mask_ratio:
            yield from checks.leaves_out(hyper.mask_ratio, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.logits = Logits(hyper.temperature, hyper.bias)

    def forward(self, batch: Batch) -> Out:
        image, text = self.pair(batch)
        scale, bias = self.logits.scale, self.logits.bias
        assert bias is not None, "made with one"
        loss = paired_sigmoid(image, text, scale=scale, bias=bias)
        return Out(loss, {"scale": scale, "bias": bias, "paired": accuracy(image, text)})
