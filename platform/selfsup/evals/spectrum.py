"""Label-free measures of the validation features: how many dimensions they fill, and how evenly.

RankMe of Quentin Garrido et al., ICML 2023, arXiv 2210.02885, equations 1 and 2. α-ReQ of Kumar Krishna Agrawal et al.,
NeurIPS 2022, arXiv 2210.05523: the exponent α of a power law λ_r ∝ r^-α, fitted to the eigenvalues of the covariance as
in the authors' code (logarithms, ranks 4 to 100, weights 1 / rank). Uniformity of Tongzhou Wang and Phillip Isola, ICML
2020, arXiv 2005.10242, equation 2 with t = 2. Standard deviation of SimSiam, arXiv 2011.10566, section 4.1. Deviations:
all are of the features that other protocols read, from all validation samples; the papers of RankMe and uniformity also
measure embeddings of the projection head, RankMe's with 25,600 training samples. Measures of several views of a
sample, as alignment and LiDAR, are not among these.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationInfo, field_validator

from selfsup.bounded import at_once
from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.feature_choice import FeatureKnobs
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor

PAIRS = 2**24  # similarities, or entries of features in float64, that are usually held at once: 64 or 128 MiB


class Spectrum(Evaluator):
    """Effective rank (RankMe), uniformity and deviation of features, and the exponent of their eigenvalues' power law.

    alpha is no score: near 1 is best. It is left out where fewer than two of the ranks have a variance.
    """

    target = None
    metrics = MappingProxyType(
        {
            "rankme": Metric(unit=""),
            "uniformity": Metric(unit="", better="min"),
            "feature_std": Metric(unit="", headline=False),
            "alpha": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(FeatureKnobs):
        t: float = knob(2.0, "how fast the potential of uniformity fades with squared distance", gt=0, le=20)
        first_rank: int = knob(4, "first eigenvalue that the power law is fitted to; the largest is 1", ge=1)
        last_rank: int = knob(100, "last eigenvalue that it is fitted to, where there are as many", ge=2)

        @field_validator("last_rank")
        @classmethod
        def _after_the_first(cls, last_rank: int, info: ValidationInfo) -> int:
            if last_rank <= info.data.get("first_rank", 1):
                raise ValueError("last_rank must be greater than first_rank: two ranks make a power law")
            return last_rank

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.health import feature_std, rankme

        check(features, labelled=False)
        if len(features.val) < 2:
            raise DataError("evaluation: distances are between 2 or more validation samples, and there is one")
        value = torch.as_tensor(features.val, device=device)
        yield "rankme", float(rankme(value))
        yield "uniformity", uniformity(torch.nn.functional.normalize(value), self.hyper.t)
        yield "feature_std", float(feature_std(value))
        spectrum = eigenvalues(value)[: self.hyper.last_rank]
        if len(spectrum) > self.hyper.first_rank:
            yield "alpha", exponent(spectrum, self.hyper.first_rank)


def uniformity(unit: "Tensor", t: float) -> float:
    """(M, D) -> log of the mean of exp(-t |x - y|²) over pairs of different samples, from -4 t to 0"""
    total, rows = 0.0, at_once(PAIRS, len(unit))
    for start in range(0, len(unit), rows):
        potential = (2 * t * (unit[start : start + rows] @ unit.T - 1)).exp()  # |x - y|² = 2 - 2 x y
        potential.diagonal(start).zero_()  # of a sample and itself
        total += float(potential.double().sum())
    return math.log(total / (len(unit) * (len(unit) - 1)))


def eigenvalues(value: "Tensor") -> NDArray[np.float64]:
    """(M, D) -> (R,): eigenvalues of the covariance, the largest first, without those that are rounding of zero"""
    import torch

    mean = value.mean(0, dtype=torch.float64)
    covariance = mean.new_zeros(len(mean), len(mean))
    for part in torch.split(value, at_once(PAIRS, value.shape[1])):
        covariance += (part - mean).T @ (part - mean) / len(value)
    values = torch.linalg.eigvalsh(covariance).flip(0).cpu().numpy()
    spectrum: NDArray[np.float64] = values[values > values[0] * max(value.shape) * np.finfo(np.float64).eps]
    return spectrum


def exponent(spectrum: NDArray[np.float64], first: int) -> float:
    """(R,) -> α of the power law of ranks `first` to R: least squares of logarithms, each weighted by 1 / rank"""
    rank = np.arange(first, len(spectrum) + 1)
    return -float(np.polyfit(np.log(rank), np.log(spectrum[first - 1 :]), 1, w=rank**-0.5)[0])
