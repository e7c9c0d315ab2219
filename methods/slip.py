"""SLIP: CLIP and SimCLR at once: an image finds its caption, and two augmented views of it find each other.

Mu, Kirillov, Wagner and Xie, "SLIP: Self-supervision meets language-image pre-training", ECCV 2022, arXiv:2112.12750.
Defaults are the authors' for ViT-B/16.

Deviations from the authors' code: those of CLIP; the head's batch normalization stands for their synchronized one, and
linear layers before it have no bias, which it would take away.
"""

from collections.abc import Mapping
from typing import final

from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Range, knob
from selfsup.method import Batch, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.contrastive import nt_xent, paired_nce
from selfsup.parts.heads import mlp
from selfsup.two_towers import Logits, TowerKnobs, TwoTowers, accuracy
from selfsup.views import Beside, Crop, Views


@final
class SLIP(TwoTowers):
    """Captions say what an image is of; views say what of it may change."""

    paper, family = "2112.12750", "image-text"

    class Hyper(TowerKnobs):
        temperature: float = knob(0.07, "of captions at the beginning; it is learned", symbol="τ", gt=0)
        scale_max: float = knob(100.0, "largest inverse of the temperature", ge=1)
        ssl_weight: float = knob(1.0, "of SimCLR's loss", symbol="λ", sweep=Choice(0.25, 1.0, 4.0), ge=0)
        ssl_temperature: float = knob(0.1, "of views", sweep=Range(0.05, 0.5, log=True), gt=0)
        ssl_hidden: int = knob(4096, "hidden channels of the views' projector", sweep=Choice(1024, 4096), gt=0)
        ssl_dim: int = knob(256, "channels of the space that views are compared in", sweep=Choice(128, 256), gt=0)
        crop_min: float = knob(0.5, "smallest crop of captioned images", sweep=Range(0.3, 1.0), gt=0, le=1)
        ssl_crop_min: float = knob(0.08, "smallest crop of views", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        plain = Crop(scale=(hyper.crop_min, 1.0), flip=0.0, resample="bilinear")
        changed = recipes.moco(crop_min=hyper.ssl_crop_min, blur=hyper.blur)
        return Views((plain, changed, changed, Beside(field="text")))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.ssl_hidden, hyper.ssl_hidden, hyper.ssl_dim, out="bias")
        self.logits = Logits(hyper.temperature, most=hyper.scale_max)
        self.weight, self.temperature = hyper.ssl_weight, hyper.ssl_temperature

    def forward(self, batch: Batch) -> Out:
        image, text = self.pair(batch)
        named = paired_nce(image, text, scale=self.logits.scale)
        a, b = (self.projector(self.backbone.pooled(view.value)) for view in batch.views[1:3])
        same = nt_xent(a, b, temperature=self.temperature)
        log = {"named": named, "same": same, "scale": self.logits.scale, "paired": accuracy(image, text)}
        return Out(named + self.weight * same, log)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.logits.bound()
