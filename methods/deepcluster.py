"""DeepCluster v2: crops are classified by the cluster that their image was assigned to in the previous epoch.

Caron, Bojanowski, Joulin and Douze, "Deep clustering for unsupervised learning of visual features", ECCV 2018,
arXiv:1807.05520, in its second version: Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, NeurIPS 2020,
arXiv:2006.09882, appendix: centroids stand in for a classifier, and there are several sets of them. Defaults are v2's
for ImageNet.

Deviations from the authors' code: nothing is learned in the first epoch, which fills the bank, where it makes a pass
for that; k-means starts from samples of all GPUs, not of the first; small crops' blur, groups and constants as in SwAV.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial, multicrop, recipes
from selfsup.parts.bank import Bank
from selfsup.parts.clustering import cosines, drawn, labelled, spherical_kmeans, usage
from selfsup.parts.heads import mlp
from selfsup.sections import Setup
from selfsup.views import Views


@final
class DeepCluster(Method):
    """All crops of an image are classified as what its embeddings of the last epoch were clustered into."""

    paper, family = "2006.09882", "clustering"
    packs = freezes = True
    initialize = staticmethod(initial.unit_residuals)
    banks: Any  # a Bank of each large crop
    centroids: Tensor  # (heads, K, D) unit vectors
    labels: Tensor  # (heads, samples) the cluster of each sample

    class Hyper(Knobs):
        clusters: int = knob(3000, "of each set", symbol="K", sweep=Choice(300, 1000, 3000, 10000), gt=1)
        heads: int = knob(3, "sets of clusters, from different starts and crops", sweep=Choice(1, 2, 3), ge=1, le=100)
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        iterations: int = knob(10, "rounds of k-means", sweep=Choice(3, 10, 30), ge=1, le=1000)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(128, "channels of the space that is clustered", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.14, **multicrop.CROP_MIN)
        local_crops: int = knob(6, sweep=Choice(0, 2, 4, 6, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.14, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        strength: float = knob(1.0, "strength of color jitter", symbol="s", sweep=Range(0.1, 1.0), ge=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.swav(hyper))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)
        if info:
            yield from checks.enough_samples(hyper.clusters, info.num_samples)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert hyper.clusters <= info.num_samples, f"{hyper.clusters} clusters of {info.num_samples} samples"
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.dim, out="bias")
        self.banks = nn.ModuleList(Bank(info.num_samples, hyper.dim) for _ in range(2))
        start = F.normalize(torch.randn(hyper.heads, hyper.clusters, hyper.dim), dim=2)
        self.register_buffer("centroids", start)
        self.register_buffer("labels", torch.randint(hyper.clusters, (hyper.heads, info.num_samples)))
        self.hyper, self.info = hyper, info

    def forward(self, batch: Batch) -> Out:
        z = self.projector(torch.cat(multicrop.pooled(self.backbone, batch.views)))
        z = z.view(len(batch.views), len(batch.sample), -1)
        scores = cosines(z, self.centroids.flatten(0, 1)).view(*z.shape[:2], self.hyper.heads, -1)
        label, tau = self.labels[:, batch.sample].T, self.hyper.temperature  # (N, heads)
        loss = labelled(scores, label.expand(len(z), -1, -1), temperature=tau)
        first, second = z[:2].detach()
        aux = {"sample": batch.sample, "first": first, "second": second}
        return Out(loss, usage(F.softmax(scores[0, :, 0] / tau, dim=1)), aux)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        for bank, crop in zip(self.banks, ("first", "second"), strict=True):
            bank.put(aux["sample"], aux[crop])
        if (round(t * self.info.num_steps) + 1) % self.info.steps_per_epoch == 0:
            self._cluster()

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(frozen_until=self.info.steps_per_epoch / self.info.num_steps)

    def _cluster(self) -> None:
        for head in range(self.hyper.heads):
            rows = self.banks[head % 2].rows
            start = drawn(rows, self.hyper.clusters)
            self.centroids[head], self.labels[head] = spherical_kmeans(rows, start, iterations=self.hyper.iterations)
