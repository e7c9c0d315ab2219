"""SeLa: images are classified by labels that optimal transport assigns anew from the network's own predictions.

Asano, Rupprecht and Vedaldi, "Self-labelling via simultaneous clustering and representation learning", ICLR 2020,
arXiv:1911.05371. Defaults are the paper's for ImageNet with a ResNet-50. Each device holds the features of all samples,
4 bytes a channel of the encoder; to find labels anew, all devices together take 24 bytes a sample and label. `rounds`
and `imbalance` in the log tell how well these were balanced: above 0.1, `iterations` were too few.

Deviations from the authors' code: labels come from the features that each image had when it was last seen, not from a
pass over the data before each relabeling; and nothing is learned in the first epoch, which gathers them. The n-th
relabeling of N is at (n / N)^2 of the rest, from n = 0 on, there at (n / (N - 1))^2, which puts the last one at the
end. The recipe's ResNet-50 is no pre-activation one.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial, recipes
from selfsup.parts.bank import Bank
from selfsup.parts.clustering import balanced_labels, labelled, usage
from selfsup.sections import Setup
from selfsup.sharded import full
from selfsup.views import Views


@final
class SeLa(Method):
    """Several linear classifiers, each with labels of its own, which are an optimal transport of what it says."""

    paper, family = "1911.05371", "clustering"
    freezes = True
    modalities = None  # any: what it learns from a view does not depend on its kind
    initialize = staticmethod(initial.unit_residuals)
    labels: Tensor  # (samples, heads)
    rounds: Tensor  # (heads,) of balancing at the last relabeling
    imbalance: Tensor  # (heads,) that they left

    class Hyper(Knobs):
        clusters: int = knob(3000, "labels of each classifier", symbol="K", sweep=Choice(300, 1000, 3000, 10000), gt=1)
        heads: int = knob(10, "classifiers", symbol="T", sweep=Choice(1, 3, 10), ge=1, le=100)
        sharpness: float = knob(25.0, "of labels", symbol="λ", sweep=Choice(5.0, 10.0, 25.0, 50.0), gt=0)
        relabels: int = knob(
            100, "times that labels are found anew, ever more rarely", sweep=Choice(10, 50, 100), ge=1, le=10000
        )
        iterations: int = knob(10000, "rounds that balance the labels, at most", ge=1, le=1000000)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        strength: float = knob(0.4, "strength of color jitter", sweep=Range(0.1, 0.5), ge=0, le=0.5)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((recipes.instdisc(crop_min=hyper.crop_min, strength=hyper.strength),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if info:
            yield from checks.enough_samples(hyper.clusters, info.num_samples)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.classifiers = nn.Linear(self.backbone.dim, hyper.heads * hyper.clusters)
        self.bank = Bank(info.num_samples, self.backbone.dim, unit=False)
        start = [torch.randperm(info.num_samples) % hyper.clusters for _ in range(hyper.heads)]
        self.register_buffer("labels", torch.stack(start, dim=1))
        self.register_buffer("rounds", torch.zeros(hyper.heads))
        self.register_buffer("imbalance", torch.zeros(hyper.heads))
        first, rest = info.steps_per_epoch, info.num_steps - info.steps_per_epoch
        self.times = {first + int(rest * (number / hyper.relabels) ** 2) for number in range(hyper.relabels)}
        self.hyper, self.info = hyper, info

    def forward(self, batch: Batch) -> Out:
        features = self.backbone.pooled(batch.views[0].value)
        scores = self.classifiers(features).unflatten(1, (self.hyper.heads, -1))
        loss = labelled(scores, self.labels[batch.sample])
        log = {"rounds": self.rounds.max(), "imbalance": self.imbalance.max()}
        aux = {"sample": batch.sample, "features": features.detach()}
        return Out(loss, usage(F.softmax(scores[:, 0].float(), dim=1)) | log, aux)

    @torch.no_grad()
    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        self.bank.put(aux["sample"], aux["features"])
        if round(t * self.info.num_steps) + 1 in self.times:
            self._relabel()

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(frozen_until=self.info.steps_per_epoch / self.info.num_steps)

    def _relabel(self) -> None:
        parts = map(full, (self.classifiers.weight, self.classifiers.bias))
        weights, biases = (part.chunk(self.hyper.heads) for part in parts)
        sharpness, iterations = self.hyper.sharpness, self.hyper.iterations
        for head, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            balanced = balanced_labels(self.bank.rows, weight, bias, sharpness=sharpness, iterations=iterations)
            self.labels[:, head], self.rounds[head], self.imbalance[head] = balanced
