"""VISReg: all views of an image gather at the mean of its large ones, while scale, shape and center are held apart.

Wu, Balestriero and Levine, "VISReg: variance-invariance-sketching regularization for JEPA training", arXiv:2606.02572.
Defaults are the paper's for ImageNet, sizes and views those of the authors' configuration for ViT-B.

Deviations from the authors' code: its directions differ from worker to worker, ours are shared out among them, so that
4096 are those of a step; the deviation is held from 0 by adding 1e-4, as in the paper's algorithm 1, not by a bound.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, multicrop, recipes, sketches
from selfsup.parts.heads import mlp
from selfsup.parts.sketches import off_center, visreg
from selfsup.sections import Setup
from selfsup.views import Views


@final
class VISReg(Method):
    """Views are drawn to the mean of the large ones; a batch has deviation 1, a Gaussian's shape and its center."""

    paper, family = "2606.02572", "redundancy reduction"
    draws: Tensor  # of the step's directions

    class Hyper(Knobs):
        weight: float = knob(
            0.9, "of the three terms; the rest is the views'", symbol="λ", sweep=Range(0.5, 0.95), ge=0, le=1
        )
        scale: float = knob(1.0, "weight of deviations off 1", sweep=Range(0.1, 10.0, log=True), ge=0)
        shape: float = knob(1.0, "weight of the shape along directions", sweep=Range(0.1, 10.0, log=True), ge=0)
        center: float = knob(1.0, "weight of means off 0", sweep=Range(0.1, 10.0, log=True), ge=0)
        slices: int = knob(4096, "random directions of a step", symbol="K", sweep=Choice(256, 1024, 4096), gt=0)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 1024, 2048), gt=0)
        dim: int = knob(256, "channels of the embedding", symbol="D", sweep=Choice(64, 128, 256, 384), gt=0)
        layers: int = knob(3, "linear layers of the projector", sweep=Choice(2, 3), ge=1, le=100)
        large_crops: int = knob(4, sweep=Choice(2, 4), **multicrop.LARGE_CROPS)
        crop_min: float = knob(0.3, **multicrop.CROP_MIN)
        local_crops: int = knob(6, sweep=Choice(0, 2, 4, 6, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.3, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)
        solarize: float = knob(0.1, "share of views that are solarized", sweep=Choice(0.0, 0.1, 0.2), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.lejepa(hyper))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        yield from checks.several_views(hyper.large_crops, hyper.local_crops)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.weights = hyper, (hyper.scale, hyper.shape, hyper.center)
        widths = [hyper.hidden] * (hyper.layers - 1)
        self.projector = mlp(self.backbone.dim, *widths, hyper.dim, activation=nn.GELU, out="bias")
        self.register_buffer("draws", sketches.first_draws())

    def forward(self, batch: Batch) -> Out:
        sizes = (
            batch.views[: self.hyper.large_crops],
            batch.views[self.hyper.large_crops :],
        )  # each normalized by itself
        z = torch.cat([self.projector(torch.cat(multicrop.pooled(self.backbone, views))) for views in sizes if views])
        z = z.view(len(batch.views), len(batch.sample), -1)
        distance = off_center(z, large=self.hyper.large_crops)
        terms = visreg(z, sketches.directions(self.draws, self.hyper.dim, self.hyper.slices))
        spread = torch.stack([weight * term for weight, term in zip(self.weights, terms, strict=True)]).sum()
        loss = (1 - self.hyper.weight) * distance + self.hyper.weight * spread
        return Out(loss, {"distance": distance, **terms._asdict()})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        sketches.next_draws(self.draws)
