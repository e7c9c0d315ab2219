"""LeJEPA: all views of an image gather at the mean of its large ones, while embeddings fill a Gaussian ball.

Balestriero and LeCun, "LeJEPA: provable and scalable self-supervised learning without the heuristics",
arXiv:2511.08544. Defaults are those of the authors' README for ImageNet, with the paper's weight of 0.05 and 1024
directions, and a projector to 64 channels, as those who trained it there since have it. No teacher, no stop-gradient,
no schedule but the learning rate's. The README's small crops have 98 pixels, for patches of 14.

Deviations from the authors' code: the characteristic function is averaged over all workers, with its gradient, and the
same directions are drawn in all, by a hash of seed and step, not by torch's generator.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, multicrop, recipes, sketches
from selfsup.parts.heads import mlp
from selfsup.parts.sketches import epps_pulley, off_center
from selfsup.sections import Setup
from selfsup.views import Views


@final
class LeJEPA(Method):
    """Views are drawn to the mean of the large ones; along random directions, their embeddings become Gaussian."""

    paper, family = "2511.08544", "redundancy reduction"
    packs = True
    draws: Tensor  # of the step's directions

    class Hyper(Knobs):
        weight: float = knob(
            0.05,
            "of the Gaussian term; the rest is the views'",
            symbol="λ",
            sweep=Range(0.01, 0.1, log=True),
            ge=0,
            le=1,
        )
        slices: int = knob(1024, "random directions of a step", symbol="M", sweep=Choice(64, 256, 1024, 4096), gt=0)
        frequencies: int = knob(17, "at which characteristic functions are compared", sweep=Choice(5, 17, 41), gt=1)
        highest: float = knob(3.0, "highest of them", sweep=Choice(1.0, 3.0, 5.0), gt=0)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 1024, 2048), gt=0)
        dim: int = knob(64, "channels of the embedding", symbol="K", sweep=Choice(16, 64, 128, 512), gt=0)
        layers: int = knob(3, "linear layers of the projector", sweep=Choice(2, 3), ge=1, le=100)
        large_crops: int = knob(2, sweep=Choice(2, 4), **multicrop.LARGE_CROPS)
        crop_min: float = knob(0.3, **multicrop.CROP_MIN)
        local_crops: int = knob(6, sweep=Choice(0, 2, 4, 6, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.3, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)
        solarize: float = knob(0.2, "share of views that are solarized", sweep=Choice(0.0, 0.2), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.lejepa(hyper))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.several_views(hyper.large_crops, hyper.local_crops)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.projector = mlp(self.backbone.dim, *[hyper.hidden] * (hyper.layers - 1), hyper.dim, out="bias")
        self.register_buffer("draws", sketches.first_draws())

    def forward(self, batch: Batch) -> Out:
        z = self.projector(torch.cat(multicrop.pooled(self.backbone, batch.views)))  # all normalized together
        z = z.view(len(batch.views), len(batch.sample), -1)
        axes = sketches.directions(self.draws, self.hyper.dim, self.hyper.slices)
        distance = off_center(z, large=self.hyper.large_crops)
        sigreg = epps_pulley(z, axes, frequencies=self.hyper.frequencies, highest=self.hyper.highest)
        loss = (1 - self.hyper.weight) * distance + self.hyper.weight * sigreg
        return Out(loss, {"distance": distance, "sigreg": sigreg})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        sketches.next_draws(self.draws)
