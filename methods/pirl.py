"""PIRL: an image and its jigsaw or rotation are contrasted with a memory bank, for invariance to that transformation.

Misra and van der Maaten, "Self-supervised learning of pretext-invariant representations", CVPR 2020, arXiv:1912.01991.
Defaults are the paper's for ImageNet, whose probability of an entry is a softmax (loss: softmax). The authors' code,
VISSL, estimates it against noise, with a constant normalizer (loss: nce), and so does the recipe. As there, the nine
pieces come in any order, and each is jittered, grayed and flipped by itself.

Deviations from the authors' code: the negatives of a step are evenly spaced rows of the memory from a random one on,
the same for all samples, not drawn one by one. There are no random posterization, sharpness, solarization and
autocontrast. The jitter of a piece takes its mean gray from its whole cell.
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
from selfsup.parts.contrastive import bank_scores, even_score, noise_nce, softmax_nce
from selfsup.parts.heads import mlp
from selfsup.parts.pretext import PUZZLE, at_each_piece, mirrored, pieces, shuffled, turned
from selfsup.views import Crop, Views


@final
class PIRL(Method):
    """An image, and a transformed one, both find the image's entry in a memory of all images."""

    paper, family, backbones = "1912.01991", "contrastive", ("cnn",)
    initialize = staticmethod(initial.unit_residuals)
    even: Tensor  # () of `noise_nce`: infinite before the first step, then that of its batch

    class Hyper(Knobs):
        pretext: Literal["jigsaw", "rotation"] = knob("jigsaw", "transformation", sweep=Choice("jigsaw", "rotation"))
        loss: Literal["softmax", "nce"] = knob(
            "softmax",
            "an entry among others: the paper's softmax, or the code's estimate against noise",
            sweep=Choice("softmax", "nce"),
        )
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
        puzzle = replace(image, size=hyper.puzzle, scale=(hyper.puzzle_min, 1), flip=0.0, cells=3)
        return Views((image, puzzle), draws=1 + 4 * PUZZLE)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, PooledEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector, self.other = (mlp(self.backbone.dim, hyper.dim, out="bias") for _ in range(2))  # f, g
        if hyper.pretext == "jigsaw":
            self.assemble = mlp(PUZZLE * hyper.dim, hyper.dim, out="bias")
        self.memory = Bank(info.num_samples, hyper.dim)
        if hyper.loss == "nce":
            self.register_buffer("even", torch.full((), torch.inf))
        self.hyper, self.negatives = hyper, min(hyper.negatives, info.num_samples)

    def forward(self, batch: Batch) -> Out:
        image, changed = self.projector(self.backbone.pooled(batch.views[0].value)), self._changed(batch)
        chosen, entry = self._chosen(batch.draws[:, 0]), self.memory.rows[batch.sample]
        negatives = self.memory.rows[chosen]
        scores = [bank_scores(x, entry, negatives, temperature=self.hyper.temperature) for x in (changed, image)]
        aux = {"sample": batch.sample, "image": image}
        if self.hyper.loss == "nce":
            even = torch.where(self.even.isinf(), even_score(scores[0], scores[0].shape[1] - 1), self.even)
            invariant, same = (noise_nce(score, even) for score in scores)
            aux["even"] = even.expand(len(image))
        else:
            invariant, same = (softmax_nce(score, batch.sample[:, None] == chosen) for score in scores)
        loss = self.hyper.invariance * invariant + (1 - self.hyper.invariance) * same
        return Out(loss, {"invariance_loss": invariant, "image_loss": same}, aux)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.memory.put(aux["sample"], F.normalize(aux["image"].float(), dim=1), momentum=self.hyper.momentum)
        if self.hyper.loss == "nce":
            self.even.copy_(aux["even"][0])

    def _changed(self, batch: Batch) -> Tensor:
        """-> (N, D): g of the transformed images"""
        images, draws = batch.views[1].value, batch.draws[:, 1:]
        assert isinstance(images, Tensor), "a CNN sees images, not tokens"
        if self.hyper.pretext == "rotation":
            whole: Tensor = self.other(self.backbone.pooled(turned(images, draws[:, 0])))
            return whole
        order, place, mirror = torch.split(draws, [PUZZLE, 2 * PUZZLE, PUZZLE], dim=1)
        cut = mirrored(pieces(images, place), mirror)
        features = at_each_piece(lambda cut: self.other(self.backbone.pooled(cut)), cut)
        assembled: Tensor = self.assemble(shuffled(features, order).flatten(1))
        return assembled

    def _chosen(self, draws: Tensor) -> Tensor:
        """(N,) -> (K,): entries to be told from; the first sample of the whole batch says where they begin."""
        samples, start = len(self.memory.rows), dist.gather(draws)[0]
        spread = torch.arange(self.negatives, device=draws.device) * (samples // self.negatives)
        return ((start * samples).long() + spread) % samples
