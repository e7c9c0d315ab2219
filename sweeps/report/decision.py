"""The decision rule: which test a study gets under a metric, and when something is claimed.

It is registered before the first run and depends on the plan and on which runs came to an end, never on their numbers.
A family is one study under one metric: its planned arms, those that are pending too, each compared with the default.

1. Seeds. If all arms with results have the same n seeds, and (K - 1)(n - 1) >= DOF, seeds are blocks: initial weights
   and order are a seed's, so arms rise and fall together, and each seed's level is taken off. Else, and where that
   leaves nothing, arms are taken for independent.
2. A difference is claimed where two bounds are both exceeded; its interval is the wider of the two, its p the larger:
   a. Dunnett's, two-sided, adjusted for all planned comparisons, from the deviation pooled over all arms (with blocks:
      the randomised block design, exact, (K - 1)(n - 1) degrees of freedom). It assumes that arms deviate alike.
   b. Welch's, from the deviations of the two arms alone (with blocks: about the seeds, Grubbs), with Satterthwaite's
      degrees of freedom, at most twice those of the arm with fewer seeds. Its p is multiplied by log2 of the number of
      planned arms. It assumes nothing of other arms.
   Why both: (a) alone makes 14 to 37 % false claims where the default deviates four to ten times as the others do, and
   3 seeds cannot show that they do, so that no test is made first; (b) adjusted in full has half of the power. Where
   one arm is noisy, (b) errs in one comparison, where the default is, in many together: log2, between none and
   Bonferroni, holds about 5 % over all truths of tests/test_calibration.py (1 to 3 % where arms deviate alike). The
   price is power: of four arms of 3 seeds, one 4 deviations above the default is told in 60 % (independent) and 92 %
   (seeds correlated by 0.6), of 5 seeds in 99 and 100 %; pooling alone would have 96 % in both.
3. The best of a table: an arm is out where another is better by the same two bounds, with the arm as the control
   (Hsu 1996, chapter 4); against the default it is the very comparison of 2, so that marks and sentences agree.
4. Failures are outcomes. A seed that diverged (numbers not finite, embeddings collapsed) counts as the worst value of
   the study: what is claimed of its arm must be claimed with it and without. What failed for other reasons is missing.
5. Looks. For each earlier plan of the same arms with fewer seeds p is doubled: alpha, alpha / 2, alpha / 4 ... sum to
   less than 2 alpha over all looks, however many.
6. Where it is known which images each seed had right, no deviation (of a and of b) is taken to be below what
   independent flips of images make (images.py): seeds that agree by chance in their accuracy are no evidence. Where
   no seed changed the accuracy of any arm, that is the deviation, with the degrees of freedom of the seeds.
7. Nothing is claimed of one seed, nor where the pooled deviation has fewer than DOF degrees of freedom.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.evaluator import ACCURACY, Metric
from selfsup.sweeps.report import images, stats
from selfsup.sweeps.report.stats import DOF, LEVEL, Array, Spread

ALPHA = 1 - LEVEL


class ImageHits(NamedTuple):
    """Images that were scored, and which of them each seed had right. images: a digest of them. hits: (n, M) bool."""

    images: str
    hits: images.Hits


class Outcome(NamedTuple):
    """One arm under one metric. values: by seed, of runs that finished with a finite number; other fields are seeds.

    hits: of the same seeds in the same order; None where it is not known.
    """

    values: Mapping[int, float]
    diverged: frozenset[int] = frozenset()
    pending: frozenset[int] = frozenset()
    planned: int = 0
    hits: ImageHits | None = None


class Comparison(NamedTuple):
    """A difference to the control.

    difference ± half hold jointly for all arms with probability LEVEL; p is adjusted.
    """

    difference: float
    half: float
    p: float


class Family:
    """Arms with two seeds or more, each with its values by seed. The first is the control of `comparisons`.

    unfinished: planned seeds of the family's other arms, which do not have two results yet. looks: earlier plans with
    fewer seeds. hits: (n, M) for each arm, where known of all: no deviation is then taken to be below the image noise
    floor.
    """

    def __init__(
        self,
        arms: Sequence[Mapping[int, float]],
        unfinished: Sequence[int] = (),
        looks: int = 0,
        hits: Sequence[images.Hits] = (),
    ) -> None:
        self.n = np.array([len(values) for values in arms])
        self.means = np.array([np.mean(list(values.values())) for values in arms])
        self.unfinished = tuple(unfinished)
        self.multiplier = 2.0**looks
        samples = [list(values.values()) for values in arms]
        self.own = np.array([np.var(values, ddof=1) for values in samples])
        self.blocked = self._use_blocks(arms)
        if not self.blocked:
            self.spread, self.variances, self.dofs = stats.spread(samples), self.own, self.n - 1.0
        self.floor: images.NoiseFloor | None = None
        self.floored = self.variances
        if hits:
            self._apply_floor(images.blocked(hits) if self.blocked else images.independent(hits))

    def _apply_floor(self, floor: images.NoiseFloor) -> None:
        """Take no deviation to be below the floor."""
        self.floor = floor
        self.spread = stats.raise_to(self.spread, floor.deviation, int((self.n - 1).sum()))
        self.floored = np.maximum(self.variances, floor.variances)

    def _use_blocks(self, arms: Sequence[Mapping[int, float]]) -> bool:
        """Treat seeds as blocks where the rule allows it; not where arms differ by a constant to the last digit."""
        if not arms or any(values.keys() != arms[0].keys() for values in arms):
            return False
        if (len(arms) - 1) * (len(arms[0]) - 1) < DOF:
            return False
        table = np.array([[values[seed] for seed in sorted(arms[0])] for values in arms])
        self.spread, self.variances = stats.blocked(table)
        self.dofs = (self.n - 1.0) / (2 if len(arms) == 2 else 1)  # two arms have one variance between them
        return self.spread is not None

    @property
    def can_claim(self) -> bool:
        """Return whether anything may be claimed."""
        return claims(self.spread) and len(self.n) > 1

    @cached_property
    def heterogeneity(self) -> float:
        """Return Bartlett's p for equal deviations of the arms, whatever their seeds share."""
        return stats.bartlett(self.own, self.n - 1.0)

    def bounds(self, control: int = 0) -> tuple[Array, Array]:
        """-> (K,), (K,): the difference of every arm to the control, and the half width of its interval."""
        assert self.spread
        difference, pooled, own, dof = self._errors(control)
        alpha = ALPHA / self.multiplier
        dunnett = stats.critical(self._sizes(control), int(self.n[control]), self.spread.dof, alpha)
        return difference, np.maximum(dunnett * pooled, stats.quantile(alpha / self._welch_factor, dof) * own)

    def against(self) -> list[Comparison]:
        """Compare every other arm with the control."""
        assert self.spread
        difference, half = self.bounds()
        _, pooled, own, dof = self._errors(0)
        welch = stats.two_sided(_in_errors(difference, own), dof) * self._welch_factor
        sizes, n = self._sizes(0), int(self.n[0])
        dunnett = [1 - stats.coverage(t, sizes, n, self.spread.dof) for t in np.abs(difference) / pooled]
        p = np.clip(np.maximum(welch, dunnett) * self.multiplier, 0, 1)
        return [Comparison(*map(float, comparison)) for comparison in zip(difference, half, p, strict=True)][1:]

    def better(self, control: int, sign: int = 1) -> NDArray[np.bool_]:
        """-> (K,): which arms are shown to be above the control. sign: -1 for below."""
        difference, half = self.bounds(control)
        exceeds: NDArray[np.bool_] = sign * difference > half
        return exceeds

    @property
    def _welch_factor(self) -> float:
        """Return the factor that the p of (b) is multiplied by: log2 of the number of arms."""
        return math.log2(max(2, len(self.n) + len(self.unfinished)))

    def _errors(self, control: int) -> tuple[Array, Array, Array, Array]:
        """-> four (K,): differences to the control, their standard errors by (a), by (b), degrees of freedom of (b)."""
        assert self.spread
        squared_errors = self.floored / self.n
        dof = stats.satterthwaite(squared_errors, squared_errors[control], self.dofs, self.dofs[control])
        dof = np.minimum(dof, 2 * np.minimum(self.dofs, self.dofs[control]))
        pooled = self.spread.deviation * np.sqrt(1 / self.n + 1 / self.n[control])
        return self.means - self.means[control], pooled, np.sqrt(squared_errors + squared_errors[control]), dof

    def _sizes(self, control: int) -> tuple[int, ...]:
        """Return the sizes of all arms compared with the control, planned ones too.

        `critical` caches by equal tuples.
        """
        sizes = self._size_cache.get(int(self.n[control]))
        if sizes is None:
            others = sorted(chain(self.n.tolist(), self.unfinished))
            others.remove(int(self.n[control]))
            sizes = self._size_cache[int(self.n[control])] = tuple(others)
        return sizes

    @cached_property
    def _size_cache(self) -> dict[int, tuple[int, ...]]:
        return {}


class Decision:
    """The claims of a family: made of its finished seeds, and where seeds diverged, with those counted as well.

    scale: of the metric; it says whether more is better.
    """

    def __init__(
        self,
        arms: Mapping[str, Outcome],
        control: str | None = None,
        looks: int = 0,
        scale: Metric = ACCURACY,
    ) -> None:
        self.scale, sign = scale, scale.sign
        names = sorted(arms, key=lambda name: name != control)
        self.control = control
        self.arms = arms
        worst = sign * min((sign * value for arm in arms.values() for value in arm.values.values()), default=0.0)
        counted = {name: {**arm.values, **dict.fromkeys(arm.diverged, worst)} for name, arm in arms.items()}
        self.diverged = {name for name, arm in arms.items() if arm.diverged}
        self.ranks = {name: float(np.mean(list(seeds.values()))) for name, seeds in counted.items() if seeds}
        self.names = [name for name in names if len(arms[name].values) > 1]
        unfinished = [arm.planned for name, arm in arms.items() if name not in self.names and arm.planned > 1]
        self.hits = _hits([arms[name] for name in self.names])
        self.family = Family([arms[name].values for name in self.names], unfinished, looks, self.hits)
        self.counting = Family([counted[name] for name in self.names], unfinished, looks) if self.diverged else None

    @property
    def can_claim(self) -> bool:
        return self.family.can_claim

    @property
    def spread(self) -> Spread | None:
        return self.family.spread

    @cached_property
    def comparisons(self) -> Mapping[str, Comparison]:
        """Compare every arm that can be compared with the control."""
        if not self.can_claim or self.control not in self.names:
            return {}
        plain = dict(zip(self.names[1:], self.family.against(), strict=True))
        if self.counting is None or not self.counting.can_claim:
            return plain
        strict = dict(zip(self.names[1:], self.counting.against(), strict=True))
        return {
            name: _combined(comparison, strict[name]) if {name, self.control} & self.diverged else comparison
            for name, comparison in plain.items()
        }

    def best(self, among: Sequence[str]) -> list[str]:
        """Return those of `among` that may have the best true mean.

        The true best is one with probability LEVEL or more.
        """
        tested = [name for name in self.names if name in set(among)]
        if not self.can_claim:
            return tested
        index = {name: place for place, name in enumerate(self.names)}
        places = np.array([index[name] for name in tested], int)
        return [name for name in tested if not self._better(index[name])[places].any()]

    def _better(self, at: int) -> NDArray[np.bool_]:
        exceeds = self.family.better(at, self.scale.sign)
        if self.counting is not None and self.counting.can_claim:
            touched = np.array([name in self.diverged for name in self.names])
            exceeds &= self.counting.better(at, self.scale.sign) | ~(touched | touched[at])
        self._agree(at, exceeds)
        return exceeds

    def _agree(self, at: int, exceeds: NDArray[np.bool_]) -> None:
        """Let the comparison with the control decide between the two, so that marks and sentences agree."""
        if not self.comparisons:
            return
        if at:
            comparison = self.comparisons[self.names[at]]
            exceeds[0] = self.scale.sign * comparison.difference < 0 and comparison.p < ALPHA
            return
        for place, name in enumerate(self.names[1:], start=1):
            comparison = self.comparisons[name]
            exceeds[place] = self.scale.sign * comparison.difference > 0 and comparison.p < ALPHA


def _hits(arms: Sequence[Outcome]) -> list[images.Hits]:
    """Return the hits of each arm; none at all where an arm's are unknown or arms saw different images."""
    known = [arm.hits for arm in arms if arm.hits]
    if len(known) < len(arms) or len({image_hits.images for image_hits in known}) > 1:
        return []
    return [image_hits.hits for image_hits in known]


def claims(spread: Spread | None) -> bool:
    return spread is not None and spread.dof >= DOF


def _in_errors(difference: Array, error: Array) -> Array:
    """Divide; with zero error, any difference is infinitely many errors."""
    ratio: Array = np.divide(np.abs(difference), error, out=np.where(difference == 0, 0.0, np.inf), where=error > 0)
    return ratio


def _combined(one: Comparison, other: Comparison) -> Comparison:
    """Combine a comparison without and with failures: the larger p, and the interval end that is nearer to zero."""
    sign = np.sign(one.difference) or 1.0
    nearer = other.half + sign * (one.difference - other.difference)
    if sign * other.difference <= 0:  # they do not even agree on the better
        return Comparison(one.difference, max(one.half, nearer), 1.0)
    return Comparison(one.difference, float(max(one.half, nearer)), max(one.p, other.p))
