"""ClusterFit: features of a trained encoder are clustered once, and a new encoder learns to name each image's cluster.

Yan, Misra, Gupta, Ghadiyaram and Mahajan, "ClusterFit: improving generalization of visual representations", CVPR 2020,
arXiv:1912.03330. The trained encoder is the spec's `teacher`. Defaults are those of the paper and of VISSL, which has a
recipe of one of its authors: 16,000 clusters, and the views of supervised learning with jitter.

Deviations from the authors' code: clusters are those of unit vectors, by spherical k-means from random samples, not
faiss's; biases do not decay.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.clustering import spherical_kmeans
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class ClusterFit(Method):
    """A linear layer on the encoder names the cluster of each image, in which a trained encoder's features put it."""

    paper, family = "1912.03330", "clustering"
    modalities = None
    learns_from = "targets"
    cluster: Tensor  # (num_samples,) of each sample; -1 for those that could not be read

    class Hyper(Knobs):
        clusters: int = knob(16000, "clusters", symbol="K", sweep=Choice(1000, 4000, 16000), gt=1)
        iterations: int = knob(50, "rounds of k-means", gt=0)
        jitter: float = knob(1.0, "share of crops whose colors are changed", sweep=Choice(0.0, 1.0), ge=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(
            scale=(hyper.crop_min, 1.0),
            resample="bilinear",
            jitter=hyper.jitter,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.2,
        )
        return Views((crop,))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if info:
            yield from checks.enough_samples(hyper.clusters, info.num_samples)

    @classmethod
    def prepare(cls, hyper: Hyper, features: Tensor, sample: Tensor, num_samples: int, seed: int) -> Tensor:
        """(M, D), (M,) -> (num_samples,) int64: the cluster of each sample that could be read, -1 for others"""
        rows = F.normalize(features.float(), dim=1)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        _, own = spherical_kmeans(rows, rows[order[: hyper.clusters]], iterations=hyper.iterations)
        return torch.full((num_samples,), -1).index_copy_(0, sample, own)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head = nn.Linear(self.backbone.dim, hyper.clusters)
        assert info.teacher, "its clusters are of a trained encoder's features"
        targets = info.teacher.targets
        blank = torch.full((info.num_samples,), -1)
        self.register_buffer("cluster", blank if targets is None else targets.clone())

    def forward(self, batch: Batch) -> Out:
        logits, cluster = self.head(self.backbone.pooled(batch.views[0].value)), self.cluster[batch.sample]
        return Out(cross_entropy(logits, cluster, smoothing=0.0), {"accuracy": accuracy(logits, cluster)})
