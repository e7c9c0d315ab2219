"""SimCLR: two augmented views of an image are contrasted with all other images of the batch.

Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020,
arXiv:2002.05709. Defaults are the paper's for ImageNet.

Deviations from the authors' code: color jitter and crops are torchvision's, with antialiasing, not TensorFlow's, which
adds brightness, changes contrast a channel at a time and draws aspect ratios evenly. The head's last normalization has
a shift, too; weights begin as timm's and PyTorch's.
"""

from collections.abc import Mapping
from typing import final

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import recipes
from selfsup.parts.contrastive import nt_xent, nt_xent_chance
from selfsup.parts.heads import mlp
from selfsup.views import Views


@final
class SimCLR(Method):
    """Two views of an image are pulled together, and away from the views of all other images in the batch."""

    paper, family = "2002.05709", "contrastive"
    modalities = None  # any: what it learns from a view does not depend on its kind
    least_batch = 256  # figure 9

    class Hyper(Knobs):
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        hidden: int | None = knob(None, "hidden channels of the projector; null: as many as the encoder's", gt=0)
        dim: int = knob(128, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        loss_scale: float = knob(1.0, "times the loss; the authors' code has 2, which moves norms faster in LARS", gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        strength: float = knob(1.0, "strength of color jitter", symbol="s", sweep=Range(0.1, 1.0), ge=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = recipes.simclr(crop_min=hyper.crop_min, strength=hyper.strength, blur=hyper.blur)
        return Views((crop, crop))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden or self.backbone.dim, hyper.dim, out="norm")  # 4.2
        self.temperature, self.loss_scale = hyper.temperature, hyper.loss_scale

    def forward(self, batch: Batch) -> Out:
        a, b = (self.projector(self.backbone.pooled(view.value)) for view in batch.views)  # normalized apart
        loss = nt_xent(a, b, temperature=self.temperature)
        return Out(self.loss_scale * loss, {"chance": self.loss_scale * nt_xent_chance(a)})
