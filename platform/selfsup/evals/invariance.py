"""Label-free measures of augmented views: how many dimensions tell samples apart, and how near views of one lie.

LiDAR of Vimal Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures", ICLR
2024, arXiv 2312.04000, section 3: each sample is a class, and its views are the members; the effective rank of the
between-class covariance, whitened by the within-class one, δ added to its diagonal. Alignment of Tongzhou Wang and
Phillip Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere",
ICML 2020, arXiv 2005.10242, equation 1 with α = 2. Deviations: views are random resized crops and flips, whatever the
objective's own are, of 1000 training samples, ten of each; both measure the features that other protocols read, where
the papers' is the embedding of the projection head.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.feature_choice import FeatureChoice, FeatureKnobs
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-7  # added to each share of the spectrum, as RankMe does


class Invariance(Evaluator):
    """Effective rank of what tells samples apart (LiDAR); mean squared distance of views of one (alignment)."""

    target = None
    metrics = MappingProxyType({"lidar": Metric(unit=""), "alignment": Metric(unit="", better="min")})

    class Hyper(FeatureKnobs):
        views: int = knob(10, "augmented views of each sample", symbol="q", ge=2)
        images: int = knob(
            1000, "training samples that views are made of, or all where they are fewer", symbol="n", ge=2
        )
        delta: float = knob(1e-4, "added to the variance within samples along each axis", symbol="δ", gt=0)

        @property
        def choice(self) -> FeatureChoice:
            return super().choice._replace(views=self.views, images=self.images)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        check(features, labelled=False)
        assert features.views is not None, "the evaluation reads augmented views"
        views = torch.as_tensor(features.views, device=device).double()
        if views.shape[1] < 2:
            raise DataError("evaluation: samples are told from each other, and there is one with views")
        yield "lidar", lidar(views, self.hyper.delta)
        yield "alignment", alignment(torch.nn.functional.normalize(views, dim=2))


def lidar(views: "Tensor", delta: float) -> float:
    """(V, K, D) float64 -> effective rank, from 1 to min(K - 1, D), of the covariance of means, whitened"""
    import torch

    mean = views.mean(0)
    within, between = (views - mean).flatten(0, 1), mean - mean.mean(0)
    root = torch.linalg.cholesky(within.T @ within / len(within) + delta * torch.eye(within.shape[1]).to(within))
    white = torch.linalg.solve_triangular(root, between.T, upper=False)  # (D, K)
    values = torch.linalg.eigvalsh(white @ white.T / white.shape[1]).clamp(min=0)
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + EPSILON
    return float(torch.special.entr(share).sum().exp())


def alignment(unit: "Tensor") -> float:
    """(V, K, D) -> mean of |x - y|² over pairs of different views of a sample, from 0 to 4"""
    number = len(unit)
    spread = unit.square().sum(2).mean(0) - unit.mean(0).square().sum(1)  # (K,), the mean of |x - mean|²
    return float(2 * number / (number - 1) * spread.mean())
