"""SimCLR: two views of an image are to find each other among all other views of the batch.

Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020,
arXiv:2002.05709.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out
from selfsup.parts.heads import projector
from selfsup.parts.losses import nt_xent
from selfsup.pipelines.views import Crop, Views


class Hyper(Knobs):
    temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
    projection: int = knob(128, "features that the loss compares", sweep=Choice(64, 128, 256), gt=0)
    crop_min: float = knob(0.08, "smallest crop, as a share of the image's area", sweep=Range(0.05, 0.5), gt=0, le=1)
    jitter: float = knob(1.0, "strength of colour jitter", symbol="s", sweep=Range(0.0, 1.0), ge=0, le=1)
    blur: float = knob(0.5, "probability of Gaussian blur", sweep=Range(0.0, 1.0), ge=0, le=1)


class SimCLR(Method):
    paper = "2002.05709"
    Hyper = Hyper

    @classmethod
    def views(cls, hyper: Hyper) -> Views:  # appendix A
        s = hyper.jitter
        colour = {"brightness": 0.8 * s, "contrast": 0.8 * s, "saturation": 0.8 * s, "hue": 0.2 * s}
        crop = Crop(scale=(hyper.crop_min, 1.0), jitter=0.8, gray=0.2, blur=hyper.blur, **colour)
        return Views((crop, crop))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(hyper, encoders)
        self.hyper = hyper
        self.encoders = nn.ModuleDict(encoders)
        (trunk,) = encoders.values()
        self.head = projector(trunk.dim, trunk.dim, hyper.projection)

    def forward(self, batch: Batch) -> Out:
        first, second = (self.project(view) for view in batch.views)
        return Out(nt_xent(first, second, temperature=self.hyper.temperature))

    def project(self, view: Tensor) -> Tensor:
        (trunk,) = self.encoders.values()
        return self.head(trunk.pooled(view))

    def encoder(self, modality: str) -> Encoder:
        return self.encoders[modality]
