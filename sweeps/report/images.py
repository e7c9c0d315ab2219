"""The uncertainty that the choice of validation images adds to that of seeds, from which images each seed had right.

S seeds are crossed with M images: hit (s, i) = level + seed s + image i + residual (s, i). The mean over both varies by

    seeds / S + images / M + residual / (S M)        (variances; e.g. A. B. Owen, "The pigeonhole bootstrap", AOAS 2007)

The variance between the seeds' accuracies, divided by S, contains the first and the last term. `level` and `difference`
estimate the second, which it does not contain: what other images of the same kind would change. Both can be added.

All numbers are in percentage points, as accuracies are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.sweeps.report import stats

Hits = NDArray[np.bool_]  # (S, M): whether each of S seeds had each of M images right
CHUNK = 1024  # images whose residuals are held at once


class NoiseFloor(NamedTuple):
    """The smallest credible deviations, see `floor`: the pooled deviation, and (K,) the arms' own variances."""

    deviation: float
    variances: stats.Array


def level(hits: Hits) -> float:
    """Return the standard error of a mean accuracy that is due to the choice of images; NaN for a single image.

    The mean squares of a two-way layout have the expectations E[MS_images] = S images + residual and E[MS_residual] =
    residual, so images / M = (MS_images - MS_residual) / (S M), 0 where that is negative. A single seed cannot separate
    the two: all of p (1 - p) / (M - 1), the binomial variance, counts as the images'.
    """
    return _points(_variance_of_mean(hits.mean(0)) - _residual(hits))


def difference(one: Hits, other: Hits) -> float:
    """Return the standard error of a difference of two accuracies due to the choice of images; NaN for a single image.

    (S, M), (T, M): both arms saw the same images, so what an image adds to both cancels. The variance of the images'
    differences contains the residuals of both arms, which the variance between seeds contains already.
    """
    assert one.shape[1] == other.shape[1], "arms that saw other images are not paired"
    return _points(_variance_of_mean(one.mean(0) - other.mean(0)) - _residual(one) - _residual(other))


def floor(hits: Hits) -> float | None:
    """Return the deviation between seeds' accuracies below which no estimate is credible; None for a single seed.

    Let seeds have image i right independently, with probability p_i. Two seeds disagree on it with probability 2 p_i (1
    - p_i), so on a share f of M images whose mean is 2 mean(p_i (1 - p_i)). The accuracy of a seed is a mean over M
    images and has the variance sum(p_i (1 - p_i)) / M^2 = f / (2 M): its deviation is sqrt(f / (2 M)).

    Seeds that flip images together, whole classes for example, deviate by more; by less only if every flip up causes
    one down elsewhere, for which there is no reason. With S seeds, f is the mean over all pairs: twice the mean of the
    images' variances, since the mean of (x - y)^2 over pairs is twice the variance.
    """
    seeds, images = hits.shape
    if seeds < 2:
        return None
    return 100 * math.sqrt(float(hits.var(0, ddof=1).mean()) / images)


def independent(arms: Sequence[Hits]) -> NoiseFloor:
    """Pool the floor over arms whose seeds have nothing in common, as accuracies are pooled; (K,) arms' variances."""
    variances = np.array([100**2 * hits.var(0, ddof=1).mean() / hits.shape[1] for hits in arms])
    return NoiseFloor(math.sqrt(np.average(variances, weights=[len(hits) - 1 for hits in arms])), variances)


def blocked(arms: Sequence[Hits]) -> NoiseFloor:
    """Return the floor of `stats.blocked`, for arms that saw the same seeds in the same order.

    A residual of the accuracies is the mean of the images' own residuals, which are independent: the expectation of its
    square is the sum of theirs, over M^2.
    """
    squares = np.zeros(len(arms))
    number = arms[0].shape[1]
    for start in range(0, number, CHUNK):
        values = np.array([hits[:, start : start + CHUNK] for hits in arms], float)  # (K, S, images)
        residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean((0, 1))
        squares += np.square(residuals).sum((1, 2))
    mean = squares * (100 / number) ** 2 / (len(arms[0]) - 1)
    return NoiseFloor(math.sqrt(float(mean.sum()) / (len(arms) - 1)), stats.grubbs(mean))


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    """-> the variance of the mean of (M,) values, taken as independent."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan


def _residual(hits: Hits) -> float:
    """-> MS_residual / (S M); 0 for a single seed."""
    seeds, images = hits.shape
    if seeds < 2 or images < 2:
        return 0.0
    residuals = hits - hits.mean(0) - hits.mean(1, keepdims=True) + hits.mean()
    return float(np.square(residuals).sum() / ((seeds - 1) * (images - 1) * seeds * images))


def _points(variance: float) -> float:
    return 100 * math.sqrt(variance) if variance > 0 or math.isnan(variance) else 0.0
