"""Statistics of a few seeds: intervals, deviations, Dunnett's critical values. decision.py builds the tests from them.

All is computed by quadrature, without random integration: equal numbers give equal digits on every machine.

- C. W. Dunnett, "A multiple comparison procedure for comparing several treatments with a control", JASA 1955.
- B. L. Welch, "The generalization of Student's problem when several different population variances are involved",
  Biometrika 1947; F. E. Satterthwaite, Biometrics 1946: degrees of freedom of a sum of estimated variances.
- F. E. Grubbs, "On estimating precision of measuring instruments and product variability", JASA 1948: the variance of
  each of several arms that see the same seeds.
- M. S. Bartlett, "Properties of sufficiency and statistical tests", Proc. Royal Soc. A 1937.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

LEVEL = 0.95
DOF = 3  # below, the deviation of 2 degrees of freedom may be 6 times too small: nothing is claimed from that
POWER = 0.8
STEP = 0.01  # degrees of freedom are rounded down to it: few quantiles do for many comparisons
NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)

Samples = Sequence[Sequence[float]]
Array = NDArray[np.float64]


class Spread(NamedTuple):
    """A standard deviation between seeds, and its degrees of freedom."""

    deviation: float
    dof: int


class FTest(NamedTuple):
    """An F statistic, its degrees of freedom, and its p."""

    f: float
    dof: tuple[int, int]
    p: float


class SeedsNeeded(NamedTuple):
    """Seeds needed per arm, and the numbers at the ends of the deviation's 95 % interval."""

    n: int
    low: int
    high: int


def spread(samples: Samples) -> Spread | None:
    """Pool the deviation over samples; None where none has two seeds, or where it is zero but for rounding."""
    dof = sum(len(values) - 1 for values in samples if values)
    squares = sum(float(np.square(np.subtract(values, np.mean(values))).sum()) for values in samples if values)
    return _spread(squares, dof, max((abs(value) for values in samples for value in values), default=0.0))


def blocked(values: Array) -> tuple[Spread | None, Array]:
    """Pool over arms that saw the same seeds, (K, n) -> the deviation left when each arm's and each seed's own level
    are removed, with (K - 1)(n - 1) degrees of freedom; and (K,), the variance of each arm about the seeds.

    With independent errors of variances v, the residuals of arm k have the expected mean square v_k (1 - 2 / K) +
    sum(v) / K^2, which is solved for v_k (Grubbs). An estimate below a quarter of the mean square, negative ones
    included, is set to that. Two arms cannot be told apart: each gets half of their difference's variance.
    """
    arms, n = values.shape
    residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    squares = np.square(residuals).sum(1)
    spread = _spread(float(squares.sum()), (arms - 1) * (n - 1), float(np.abs(values).max()))
    return spread, grubbs(squares / (n - 1))


def grubbs(mean: Array) -> Array:
    """Solve for variances: (K,) mean squares of the residuals of `blocked` -> (K,)."""
    arms = len(mean)
    variances: Array = 2 * mean
    if arms > 2:
        total = mean.sum() * arms / (arms - 1)
        variances = np.maximum((mean - total / arms**2) / (1 - 2 / arms), mean / 4)
    return variances


def _spread(squares: float, dof: int, largest: float) -> Spread | None:
    if dof == 0 or math.sqrt(squares / dof) <= 1e-12 * largest:
        return None
    return Spread(math.sqrt(squares / dof), dof)


def raise_to(spread: Spread | None, floor: float, dof: int) -> Spread | None:
    """Raise a deviation to a floor. dof: for the case that all seeds gave one number. None where both are unknown."""
    if spread is None:
        return Spread(floor, dof) if floor else None
    return spread._replace(deviation=max(spread.deviation, floor))


def half_width(own: Spread, n: int) -> float:
    """Return the half width of the interval of one mean of n seeds."""
    return float(stats.t.isf((1 - LEVEL) / 2, own.dof)) * own.deviation / math.sqrt(n)


def satterthwaite(first: Array, second: Array, dof: Array, other: Array) -> Array:
    """-> (K,): degrees of freedom of sums of two estimated variances with `dof` and `other`, rounded down to STEP."""
    total = np.square(first + second)
    parts = np.square(first) / dof + np.square(second) / other
    dofs: Array = np.divide(total, parts, out=dof + other + 0 * total, where=parts > 0)
    rounded: Array = np.floor(dofs / STEP) * STEP
    return rounded


def two_sided(t: Array, dof: Array) -> Array:
    """Return Student's two-sided p."""
    p: Array = 2 * special.stdtr(dof, -np.abs(t))
    return p


def quantile(alpha: float, dof: Array) -> Array:
    """Return the bound that |t| exceeds with probability alpha, for dof >= 1 as `satterthwaite` rounds it."""
    most = 2 ** math.ceil(math.log2(dof.max()))
    bound: Array = _quantiles(alpha, most)[np.rint((dof - 1) / STEP).astype(int)]
    return bound


@lru_cache(maxsize=64)
def _quantiles(alpha: float, largest_dof: int) -> Array:
    quantiles: Array = special.stdtrit(1 + np.arange(round((largest_dof - 1) / STEP) + 1) * STEP, 1 - alpha / 2)
    return quantiles


def bartlett(variances: Array, dof: Array) -> float:
    """Return the p of Bartlett's test for equal variances, without zero variances; 1 where fewer than two remain."""
    own, f = variances[variances > 0], dof[variances > 0]
    if len(own) < 2:
        return 1.0
    pooled = float((f * own).sum() / f.sum())
    ratio = f.sum() * math.log(pooled) - float((f * np.log(own)).sum())
    correction = 1 + ((1 / f).sum() - 1 / f.sum()) / (3 * (len(own) - 1))
    return float(stats.chi2.sf(ratio / correction, len(own) - 1))


def interaction(means: Array, n: int, spread: Spread) -> FTest:
    """Test whether crossed rows and columns leave differences: (R, C) means of n seeds each."""
    residuals = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    dof = (means.shape[0] - 1) * (means.shape[1] - 1)
    f = float(n * np.square(residuals).sum() / dof / spread.deviation**2)
    return FTest(f, (dof, spread.dof), float(stats.f.sf(f, dof, spread.dof)))


def seeds_needed(spread: Spread, difference: float, arms: int) -> SeedsNeeded:
    """Return the fewest seeds with which this true difference to the default is claimed with probability POWER.

    By the noncentral t, for `arms` arms, with Bonferroni's bound in place of Dunnett's, which is slightly smaller.
    """
    tail = (1 - LEVEL) / 2
    ends = spread.deviation * np.sqrt(spread.dof / stats.chi2.isf([tail, 1 - tail], spread.dof))
    low, high = (_needed(float(deviation), difference, arms) for deviation in ends)
    return SeedsNeeded(_needed(spread.deviation, difference, arms), low, high)


def _needed(deviation: float, difference: float, arms: int) -> int:
    low, high = 1, 2
    while _power(high, difference / deviation, arms) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _power(middle, difference / deviation, arms) < POWER else (low, middle)
    return high


def _power(n: int, effect: float, arms: int) -> float:
    """Return the power of the stricter bound of decision.py: from the pooled deviation, or from the two arms' own."""
    comparisons = max(1, arms - 1)
    bounds = [(1 - LEVEL) / comparisons, (1 - LEVEL) / min(2, comparisons)]
    dofs = [max(2, arms) * (n - 1), 2 * (n - 1)]
    shift = effect * math.sqrt(n / 2)
    return min(
        float(stats.nct.sf(stats.t.isf(alpha / 2, dof), dof, shift)) if shift < 30 else 1.0
        for alpha, dof in zip(bounds, dofs, strict=True)
    )


@lru_cache(maxsize=1024)
def critical(sizes: tuple[int, ...], control: int, dof: int, alpha: float) -> float:
    """Solve for Dunnett's bound, exceeded with probability alpha: between those of one comparison and of Bonferroni.

    sizes: of the samples compared with the control, sorted.
    """
    single, bonferroni = stats.t.isf(alpha / 2 / np.array([1, len(sizes)]), dof)
    return float(
        optimize.brentq(
            lambda bound: coverage(bound, sizes, control, dof) - (1 - alpha),
            0.99 * single,
            1.01 * bonferroni,
            xtol=1e-10,
        )
    )


def coverage(bound: float, sizes: tuple[int, ...], control: int, dof: int) -> float:
    """Integrate the probability that no Student statistic of equal means exceeds ± the bound.

    Dunnett's equation for len(sizes) means and their control: given the control's own error u and the deviation's s,
    the statistics are independent.
    """
    n, times = np.unique(sizes, return_counts=True)
    shared = np.sqrt(n / (n + control))[:, None, None]
    (u, weight_u), (s, weight_s) = _ERROR, _deviation(dof)
    upper, lower = ((shared * u[:, None] + side * s) / np.sqrt(1 - shared**2) for side in (bound, -bound))
    within = special.ndtr(upper) - special.ndtr(lower)
    return float(weight_u @ np.prod(within ** times[:, None, None], axis=0) @ weight_s)


@lru_cache(maxsize=1024)
def _deviation(dof: int) -> tuple[Array, Array]:
    """-> (96,), (96,): nodes and weights of the estimated deviation over the true one."""
    s, weights = _nodes(*np.sqrt(stats.chi2.ppf([1e-13, 1 - 1e-13], dof) / dof))
    return s, weights * stats.chi.pdf(s * math.sqrt(dof), dof) * math.sqrt(dof)


def _nodes(low: float, high: float) -> tuple[Array, Array]:
    """-> (96,), (96,): Gauss-Legendre nodes and weights between two ends."""
    return (high + low + (high - low) * NODES) / 2, WEIGHTS * (high - low) / 2


def _normal() -> tuple[Array, Array]:
    u, weights = _nodes(-8.5, 8.5)
    return u, weights * stats.norm.pdf(u)


_ERROR = _normal()
