"""What the validation images add to what the seeds tell, from the images that each seed had right.

S seeds are crossed with M images: hit (s, i) = level + seed s + image i + rest (s, i). A mean over both varies by

    seeds / S + images / M + rest / (S M)        (variances; e.g. A. B. Owen, "The pigeonhole bootstrap", AOAS 2007)

The variance between the seeds' accuracies, over S, has the first and the last term in it. `level` and `difference` give
the second, which it does not see: what other images of the same kind would change. Both can be added.

All numbers are in points of a percentage, as accuracies are.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.sweeps.report import stats

Hits = NDArray[np.bool_]  # (S, M): whether each of S seeds had each of M images right
CHUNK = 1024  # images whose residuals are held at once


class Floor(NamedTuple):
    """What is the least to be believed, see `floor`: of the pooled deviation, and (K,) of the arms' own variances."""

    deviation: float
    variances: stats.Array


def level(hits: Hits) -> float:
    """Give the standard error of a mean accuracy that comes from the choice of images. NaN of a single image.

    The mean squares of a two-way layout have the expectations E[MS_images] = S images + rest and E[MS_rest] = rest, so
    images / M = (MS_images - MS_rest) / (S M), 0 where that comes out negative. One seed cannot tell the two apart: all
    of p (1 - p) / (M - 1), the binomial's, counts as the images'.
    """
    return _points(_between(hits.mean(0)) - _rest(hits))


def difference(one: Hits, other: Hits) -> float:
    """Give the standard error of a difference of two arms' accuracies that the choice of images makes; NaN likewise.

    (S, M), (T, M): both arms saw the same images, so what an image adds to both drops out. What is left between the
    images' differences has each arm's rest in it, which the seeds tell already.
    """
    assert one.shape[1] == other.shape[1], "arms that saw other images are not paired"
    return _points(_between(one.mean(0) - other.mean(0)) - _rest(one) - _rest(other))


def floor(hits: Hits) -> float | None:
    """Give the deviation between seeds' accuracies below which no estimate from them is to be believed; None of one.

    Let seeds have image i right independently, with chance p_i. Two seeds disagree on it with chance 2 p_i (1 - p_i),
    so on a share f of M images whose mean is 2 mean(p_i (1 - p_i)). The accuracy of a seed is a mean over M images and
    varies by sum(p_i (1 - p_i)) / M^2 = f / (2 M): its deviation is sqrt(f / (2 M)).

    Seeds that flip images together, whole classes for example, deviate by more; by less only if every flip up calls
    forth one down elsewhere, for which there is no reason. Of S seeds, f is the mean over all pairs: twice the mean of
    the images' variances, since the mean of (x - y)^2 over pairs is twice the variance.
    """
    seeds, images = hits.shape
    if seeds < 2:
        return None
    return 100 * math.sqrt(float(hits.var(0, ddof=1).mean()) / images)


def apart(arms: Sequence[Hits]) -> Floor:
    """Pool as accuracies are pooled, over arms whose seeds have nothing in common; (K,) arms' variances."""
    variances = np.array([100**2 * hits.var(0, ddof=1).mean() / hits.shape[1] for hits in arms])
    return Floor(math.sqrt(np.average(variances, weights=[len(hits) - 1 for hits in arms])), variances)


def blocked(arms: Sequence[Hits]) -> Floor:
    """Tell what flips make of `stats.blocked`, of arms that saw the same seeds in the same order.

    A residual of the accuracies is the mean of the images' own residuals, which are independent: the expectation of its
    square is the sum of theirs, over M^2.
    """
    squares = np.zeros(len(arms))
    number = arms[0].shape[1]
    for start in range(0, number, CHUNK):
        values = np.array([hits[:, start : start + CHUNK] for hits in arms], float)  # (K, S, images)
        left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean((0, 1))
        squares += np.square(left).sum((1, 2))
    mean = squares * (100 / number) ** 2 / (len(arms[0]) - 1)
    return Floor(math.sqrt(float(mean.sum()) / (len(arms) - 1)), stats.grubbs(mean))


def _between(values: NDArray[np.float64]) -> float:
    """-> the variance of the mean of (M,), as if they were independent"""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan


def _rest(hits: Hits) -> float:
    """-> MS_rest / (S M); 0 of one seed"""
    seeds, images = hits.shape
    if seeds < 2 or images < 2:
        return 0.0
    left = hits - hits.mean(0) - hits.mean(1, keepdims=True) + hits.mean()
    return float(np.square(left).sum() / ((seeds - 1) * (images - 1) * seeds * images))


def _points(variance: float) -> float:
    return 100 * math.sqrt(variance) if variance > 0 or math.isnan(variance) else 0.0
