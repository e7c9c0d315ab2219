"""PIRL: an image and its jigsaw or rotation are contrasted with a memory bank, for invariance to that transformation.

Misra and van der Maaten, "Self-supervised learning of pretext-invariant representations", CVPR 2020, arXiv:1912.01991.
Defaults are the paper's for ImageNet. Deviations: the negatives of a step are evenly spaced rows of the memory from a
random one on, the same for all samples, not drawn one by one; nine pieces are shuffled in any order.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import PooledEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import dist, initial
from selfsup.parts.bank import Bank
from selfsup.parts.contrastive import bank_nce
from selfsup.parts.heads import mlp
from selfsup.parts.places import at_each
from selfsup.parts.pretext import PUZZLE, pieces, shuffled, turned
from selfsup.views import Crop, Views


@final
class PIRL(Method):
    """An image, and a transformed one, both find the image's entry in a memory of all images."""

    paper, family, backbones = "1912.01991", "contrastive", ("cnn",)
    initialize = staticmethod(initial.unit_residuals)

    class Hyper(Knobs):
        pretext: Literal["jigsaw", "rotation"] = knob("jigsaw", "transformation", sweep=Choice("jigsaw", "rotation"))
        temperature: float = knob(0.07, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        negatives: int = knob(32000, "entries of other images", symbol="N", sweep=Choice(1024, 4096, 32000), gt=0)
        invariance: float = knob(0.5, "weight of the transformed image", symbol="λ", sweep=Range(0.1, 0.9), gt=0, lt=1)
        momentum: float = knob(0.5, "of an entry of the memory", sweep=Choice(0.0, 0.5, 0.9), ge=0, lt=1)
        dim: int = knob(128, "channels of the space that images are compared in", sweep=Choice(64, 128, 256), gt=0)
        puzzle: int = knob(255, "pixels a side of the image that is cut into nine", ge=12)
        puzzle_min: float = knob(0.6, "smallest crop for a puzzle, as a share of the image", gt=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        image = Crop(
            scale=(hyper.crop_min, 1),
            resample="bilinear",
            jitter=1,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.2,
            gray=0.2,
        )
        if hyper.pretext == "rotation":
            return Views((image, image), draws=2)
        return Views((image, replace(image, size=hyper.puzzle, scale=(hyper.puzzle_min, 1))), draws=1 + 3 * PUZZLE)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, PooledEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector, self.other = (mlp(self.backbone.dim, hyper.dim, out="bias") for _ in range(2))  # f, g
        if hyper.pretext == "jigsaw":
            self.assemble = mlp(PUZZLE * hyper.dim, hyper.dim, out="bias")
        self.memory = Bank(info.num_samples, hyper.dim)
        self.hyper, self.negatives = hyper, min(hyper.negatives, info.num_samples)

    def forward(self, batch: Batch) -> Out:
        image, changed = self.projector(self.backbone.pooled(batch.views[0].value)), self._changed(batch)
        chosen, entry = self._chosen(batch.draws[:, 0]), self.memory.rows[batch.sample]
        own = batch.sample[:, None] == chosen
        invariant, same = (
            bank_nce(x, entry, self.memory.rows[chosen], own, temperature=self.hyper.temperature)
            for x in (changed, image)
        )
        loss = self.hyper.invariance * invariant + (1 - self.hyper.invariance) * same
        log = {"invariance_loss": invariant, "image_loss": same}
        return Out(loss, log, aux={"sample": batch.sample, "image": image})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.memory.put(aux["sample"], F.normalize(aux["image"].float(), dim=1), momentum=self.hyper.momentum)

    def _changed(self, batch: Batch) -> Tensor:
        """-> (N, D): g of the transformed images"""
        images, draws = batch.views[1].value, batch.draws[:, 1:]
        assert isinstance(images, Tensor), "a CNN sees images, not tokens"
        if self.hyper.pretext == "rotation":
            whole: Tensor = self.other(self.backbone.pooled(turned(images, draws[:, 0])))
            return whole
        cut = pieces(images, draws[:, PUZZLE:])  # each goes through the encoder by itself
        each = at_each(self.other, self.backbone.pooled(cut.flatten(0, 1)).reshape(*cut.shape[:2], -1))
        assembled: Tensor = self.assemble(shuffled(each, draws[:, :PUZZLE]).flatten(1))
        return assembled

    def _chosen(self, draws: Tensor) -> Tensor:
        """(N,) -> (K,): entries to be told from; the first sample of the whole batch says where they begin."""
        samples, start = len(self.memory.rows), dist.gather(draws)[0]
        spread = torch.arange(self.negatives, device=draws.device) * (samples // self.negatives)
        return ((start * samples).long() + spread) % samples
