"""What a few seeds can tell: intervals, comparisons with a default, ties with the best.

Every arm of a study lends its seeds to one estimate of the deviation between seeds; that is what makes 2 or 3 seeds say
something, and it assumes that arms deviate alike and normally. All is computed by quadrature: the same numbers give the
same digits on every machine, with no random integration.

- C. W. Dunnett, "A multiple comparison procedure for comparing several treatments with a control", JASA 1955.
- J. C. Hsu, "Multiple comparisons: theory and methods", 1996, chapter 4 (with the best).
- P. H. Westfall and S. S. Young, "Resampling-based multiple testing", 1993 (the largest statistic of each resampling).
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
PAIRED = range(6, 17)  # fewer seeds cannot reach p < 0.05 by sign flips; more have no need of them
NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)

Samples = Sequence[Sequence[float]]


class Spread(NamedTuple):
    """The standard deviation between seeds, pooled over arms, and the degrees of freedom it rests on."""

    deviation: float
    dof: int


class Comparison(NamedTuple):
    """difference ± half holds for all comparisons at once with probability LEVEL; p is adjusted for their number."""

    difference: float
    half: float
    p: float


class Effect(NamedTuple):
    """An F statistic, its degrees of freedom, and its p."""

    f: float
    dof: tuple[int, int]
    p: float


def spread(samples: Samples) -> Spread | None:
    """None where it cannot be estimated: no arm has two seeds, or no seed changed a digit."""
    dof = sum(len(values) - 1 for values in samples if values)
    squares = sum(float(np.square(np.subtract(values, np.mean(values))).sum()) for values in samples if values)
    largest = max((abs(value) for values in samples for value in values), default=0.0)
    if dof == 0 or math.sqrt(squares / dof) <= 1e-12 * largest:
        return None
    return Spread(math.sqrt(squares / dof), dof)


def half_width(found: Spread, n: int) -> float:
    """Of the interval of one mean of n seeds."""
    return float(stats.t.isf((1 - LEVEL) / 2, found.dof)) * found.deviation / math.sqrt(n)


def dunnett(samples: Samples, control: Sequence[float], found: Spread) -> list[Comparison]:
    """Each sample against the control, two-sided; equal to scipy.stats.dunnett where `found` pools just these."""
    sizes, compared = tuple(sorted(len(values) for values in samples)), []
    critical = _critical(sizes, len(control), found.dof)
    for values in samples:
        difference = float(np.mean(values) - np.mean(control))
        error = found.deviation * math.sqrt(1 / len(values) + 1 / len(control))
        inside = _inside(abs(difference) / error, sizes, len(control), found.dof)
        compared.append(Comparison(difference, critical * error, max(0.0, 1 - inside)))
    return compared


def contenders(samples: Samples, found: Spread, beside: Sequence[int] = ()) -> list[bool]:
    """Which samples may have the highest true mean: with probability LEVEL or more the true best is among them (Hsu).

    A sample is out when Dunnett's test with it as the control puts another above it. Two-sided, and adjusted for arms
    of the sizes `beside` too, as comparisons with a default are: so that the two never contradict each other.
    """
    n = np.array([len(values) for values in samples])
    means = np.array([np.mean(values) for values in samples])
    kept = []
    for size, mean in zip(n, means, strict=True):
        sizes = sorted([*n.tolist(), *beside])
        sizes.remove(size)
        error = found.deviation * np.sqrt(1 / n + 1 / size)
        kept.append(not sizes or bool((means - mean < _critical(tuple(sizes), int(size), found.dof) * error).all()))
    return kept


def sign_flips(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, K) -> (K,): exact two-sided p of K paired differences over n seeds, adjusted for K by the largest statistic.

    Assumes that differences are symmetric about zero if there is no effect, not that they are normal.
    """
    n = len(differences)
    length = np.sqrt(np.square(differences).sum(0))
    unit = differences / np.where(length > 0, length, 1)
    signs = 1 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1)  # one is never flipped: all is as none
    largest = np.abs(signs @ unit).max(1)
    p: NDArray[np.float64] = (largest[:, None] >= np.abs(unit.sum(0)) - 1e-9).mean(0)
    return p


def interaction(means: NDArray[np.float64], n: int, found: Spread) -> Effect:
    """(R, C), each the mean of n seeds: whether crossed rows and columns explain less than all of their differences."""
    left = means - means.mean(0) - means.mean(1, keepdims=True) + means.mean()
    dof = (means.shape[0] - 1) * (means.shape[1] - 1)
    f = float(n * np.square(left).sum() / dof / found.deviation**2)
    return Effect(f, (dof, found.dof), float(stats.f.sf(f, dof, found.dof)))


def seeds_needed(deviation: float, half: float, arms: int) -> int:
    """The fewest seeds for each of `arms` arms whose means then have intervals of ± `half` or less; at least 2."""
    n = max(2, math.ceil((1.95 * deviation / half) ** 2))  # fewer would not do if the deviation were known
    while half_width(Spread(deviation, arms * (n - 1)), n) > half:
        n += 1
    return n


def places(half: float | None) -> int:
    """Decimals that two significant digits of an interval have; 2 where there is no interval."""
    if not half:
        return 2
    return max(0, 1 - math.floor(math.log10(float(f"{half:.1e}"))))


@lru_cache(maxsize=256)
def _critical(sizes: tuple[int, ...], control: int, dof: int) -> float:
    """The bound that stays with probability LEVEL: between those of one comparison and of Bonferroni."""
    single, bonferroni = stats.t.isf((1 - LEVEL) / 2 / np.array([1, len(sizes)]), dof)
    return float(
        optimize.brentq(
            lambda bound: _inside(bound, sizes, control, dof) - LEVEL, 0.99 * single, 1.01 * bonferroni, xtol=1e-10
        )
    )


def _inside(bound: float, sizes: tuple[int, ...], control: int, dof: int) -> float:
    """Chance that no Student statistic of len(sizes) equal means against their control exceeds ± the bound.

    Dunnett's equation: given the control's own error u and the deviation's s, the statistics are independent.
    """
    n, times = np.unique(sizes, return_counts=True)
    shared = np.sqrt(n / (n + control))[:, None, None]
    u, weight_u = _nodes(-8.5, 8.5)
    s, weight_s = _nodes(*np.sqrt(stats.chi2.ppf([1e-13, 1 - 1e-13], dof) / dof))
    weight_u = weight_u * stats.norm.pdf(u)
    weight_s = weight_s * stats.chi.pdf(s * math.sqrt(dof), dof) * math.sqrt(dof)
    upper, lower = ((shared * u[:, None] + side * s) / np.sqrt(1 - shared**2) for side in (bound, -bound))
    within = special.ndtr(upper) - special.ndtr(lower)
    return float(weight_u @ np.prod(within ** times[:, None, None], axis=0) @ weight_s)


def _nodes(low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre between two ends."""
    return (high + low + (high - low) * NODES) / 2, WEIGHTS * (high - low) / 2
