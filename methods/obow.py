"""OBoW: the student predicts from crops the bag of visual words that an EMA teacher finds in the whole image.

Gidaris, Bursuc, Puy, Komodakis, Cord and Pérez, "OBoW: online bag-of-visual-words generation for self-supervised
learning", CVPR 2021, arXiv:2012.11552. Defaults are the paper's full version for ImageNet; the plain one is levels: 1,
crops: 1, local_crops: 0, sharpness: 10, kappa: 5. The teacher sees the central 7/8 of an image, as in its code.

Deviations from the authors' code: small crops are drawn one by one, and each is changed in color by itself; theirs are
five cells of a grid over one crop. The momentum with which the teacher follows a step is that of this step, not of the
next one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import PooledEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import dist, initial, multicrop, norms, recipes
from selfsup.parts.bank import Queue
from selfsup.parts.clustering import bag_error, bag_of_words, distances, usage
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.schedules import cosine
from selfsup.views import Center, Views


@final
class OBoW(Method):
    """A teacher sees the whole image and counts visual words, a queue of its features; the student sees crops."""

    paper, family = "2012.11552", "clustering"
    initialize = staticmethod(initial.unit_residuals)
    backbones = ("cnn",)
    vocabularies: Any  # a Queue of each level
    spread: Tensor  # (levels,) running mean of squared distances from the nearest word

    class Hyper(Knobs):
        words: int = knob(8192, "visual words", symbol="K", sweep=Choice(1024, 2048, 8192), gt=1)
        levels: int = knob(
            2, "last stages of the encoder that have words of their own", sweep=Choice(1, 2), ge=1, le=100
        )
        sharpness: float = knob(15.0, "of assigning words", symbol="1/δ", sweep=Choice(5.0, 10.0, 15.0, 20.0), gt=0)
        kappa: float = knob(8.0, "scale of predictions", symbol="κ", sweep=Choice(1.0, 5.0, 8.0, 16.0), gt=0)
        momentum: float = knob(0.99, "of the teacher at first", symbol="α", sweep=Choice(0.9, 0.99, 0.999), ge=0, le=1)
        hidden: int | None = knob(None, "hidden channels that predict weights; null: twice the encoder's", gt=0)
        border: int = knob(1, "places at each side of a feature map that are left out", ge=0)
        crops: int = knob(2, "large crops", sweep=Choice(1, 2), ge=1, le=100)
        crop_size: int = knob(160, "pixels a side of a large crop", gt=0)
        crop_min: float = knob(0.08, **multicrop.CROP_MIN)
        crop_max: float = knob(0.6, "largest large crop, as a share of the image", sweep=Range(0.3, 1.0), gt=0, le=1)
        local_crops: int = knob(5, sweep=Choice(0, 2, 5, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.084, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.14, **multicrop.LOCAL_MAX)
        blur: float = knob(0.5, "share of large crops that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        whole = Center(
            share=224 / 256, flip=0.5, rounded=True, resample="bilinear"
        )  # as images are cropped for tests, flipped or not
        large = replace(recipes.moco(blur=hyper.blur), size=hyper.crop_size, scale=(hyper.crop_min, hyper.crop_max))
        small = replace(large, size=hyper.local_size, scale=(hyper.local_min, hyper.local_max), blur=0.0)
        return Views((whole, *[large] * hyper.crops, *[small] * hyper.local_crops), draws=hyper.levels)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, PooledEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        dim, widths = self.backbone.dim, self.backbone.widths[-hyper.levels :]
        self.teacher = ema_copy(self.backbone)
        self.vocabularies = nn.ModuleList(Queue(hyper.words, width) for width in widths)
        for queue in self.vocabularies:  # until they are replaced, words are as features are: not negative
            queue.rows.normal_().clamp_min_(0)
        self.generators = nn.ModuleList(mlp(width, hyper.hidden or 2 * dim, dim, out="bias") for width in widths)
        norms.keep_alike(self.generators)  # of words, which are those of all processes
        self.register_buffer("spread", torch.full((hyper.levels,), 0.5))
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        seen = multicrop.pooled(self.backbone, batch.views[1:])
        sizes = [torch.stack(group) for group in (seen[: self.hyper.crops], seen[self.hyper.crops :]) if group]
        losses: list[Tensor] = []
        aux: dict[str, Tensor] = {}
        for level, (places, words, generate) in enumerate(
            zip(self._places(batch), (queue.rows for queue in self.vocabularies), self.generators, strict=True)
        ):
            distance = distances(places, words)
            nearest = distance.amin(dim=2).mean(dim=1)
            bag = bag_of_words(distance, self._tracked(level, nearest) / self.hyper.sharpness)
            weights = F.normalize(generate(F.normalize(words, dim=1)).float(), dim=1)
            losses += [bag_error(features, weights, bag, kappa=self.hyper.kappa) for features in sizes]
            aux |= {f"nearest{level}": nearest, f"word{level}": _drawn(places, batch.draws[:, level])}
        loss = torch.stack(losses).sum() / self.hyper.levels  # large and small crops weigh the same
        return Out(loss, usage(bag), aux)

    @torch.no_grad()
    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        ema_update(self.teacher, self.backbone, cosine(t, self.hyper.momentum, 1.0))
        for level, queue in enumerate(self.vocabularies):
            self.spread[level] = self._tracked(level, aux[f"nearest{level}"])
            queue.push(aux[f"word{level}"])

    @torch.no_grad()
    def _places(self, batch: Batch) -> list[Tensor]:
        """(N, D, h, w) of each level: what the teacher makes of the whole image, but for the border."""
        image, cut = batch.views[0].value, self.hyper.border
        assert isinstance(image, Tensor)
        stages = self.teacher.stages(image)[-self.hyper.levels :]
        small = min(min(stage.shape[2:]) for stage in stages)
        assert small > 2 * cut, f"a border of {cut} leaves nothing of feature maps of {small} by {small} places"
        return [stage[:, :, cut : stage.shape[2] - cut, cut : stage.shape[3] - cut] for stage in stages]

    def _tracked(self, level: int, nearest: Tensor) -> Tensor:
        """(N,) -> (): the running mean, this batch included"""
        return 0.99 * self.spread[level] + 0.01 * dist.mean(nearest.mean())


def _drawn(places: Tensor, draws: Tensor) -> Tensor:
    """(N, D, h, w), (N,) in [0, 1) -> (N, D): at one place of each image, the mean over three by three of them."""
    means = F.avg_pool2d(places.float(), min(3, *places.shape[2:]), stride=1).flatten(2)
    where = (draws * means.shape[2]).long().clamp_max(means.shape[2] - 1)
    return means.take_along_dim(where[:, None, None], dim=2)[:, :, 0]
