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
3. The best of a table: an arm is out where another is above it by the same two bounds, with the arm as the control
   (Hsu 1996, chapter 4); against the default it is the very comparison of 2, so that marks and sentences agree.
4. Failures are outcomes. A seed that diverged (numbers not finite, embeddings collapsed) counts as the lowest value of
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

from selfsup.sweeps.report import images, stats
from selfsup.sweeps.report.stats import DOF, LEVEL, Array, Spread

ALPHA = 1 - LEVEL


class Right(NamedTuple):
    """images: which; equal where they are the same. hits: (n, M), whether each seed had each of them right."""

    images: str
    hits: images.Hits


class Outcome(NamedTuple):
    """One arm under one metric. values: by seed, of runs that finished with a finite number. The others are seeds.

    right: of the same seeds in the same order; None where it is not known.
    """

    values: Mapping[int, float]
    diverged: frozenset[int] = frozenset()
    pending: frozenset[int] = frozenset()
    planned: int = 0
    right: Right | None = None


class Comparison(NamedTuple):
    """difference ± half holds for all comparisons at once with probability LEVEL; p is adjusted for their number."""

    difference: float
    half: float
    p: float


class Family:
    """Arms of two seeds or more, each with its values by seed. The first is the control of `against`.

    beside: planned seeds of other arms of the family, which have no two results yet. looks: at fewer seeds, before.
    right: what the values are of, where it is known of all arms: no deviation is taken to be below its floor.
    """

    def __init__(
        self,
        arms: Sequence[Mapping[int, float]],
        beside: Sequence[int] = (),
        looks: int = 0,
        right: Sequence[images.Hits] = (),
    ) -> None:
        self.n = np.array([len(values) for values in arms])
        self.means = np.array([np.mean(list(values.values())) for values in arms])
        self.beside = tuple(beside)
        self.times = 2.0**looks
        samples = [list(values.values()) for values in arms]
        self.own = np.array([np.var(values, ddof=1) for values in samples])
        self.blocked = self._block(arms)
        if not self.blocked:
            self.spread, self.variances, self.dofs = stats.spread(samples), self.own, self.n - 1.0
        self.floor: images.Floor | None = None
        self.believed = self.variances
        if right:
            self._raise(images.blocked(right) if self.blocked else images.apart(right))

    def _raise(self, floor: images.Floor) -> None:
        """Take no deviation to be below the floor."""
        self.floor = floor
        self.spread = stats.raised(self.spread, floor.deviation, int((self.n - 1).sum()))
        self.believed = np.maximum(self.variances, floor.variances)

    def _block(self, arms: Sequence[Mapping[int, float]]) -> bool:
        """Take seeds as blocks, where they may be; not where arms are in step to the last digit."""
        if not arms or any(values.keys() != arms[0].keys() for values in arms):
            return False
        if (len(arms) - 1) * (len(arms[0]) - 1) < DOF:
            return False
        table = np.array([[values[seed] for seed in sorted(arms[0])] for values in arms])
        self.spread, self.variances = stats.blocked(table)
        self.dofs = (self.n - 1.0) / (2 if len(arms) == 2 else 1)  # two arms have one variance between them
        return self.spread is not None

    @property
    def able(self) -> bool:
        """Tell whether anything may be claimed."""
        return claims(self.spread) and len(self.n) > 1

    @cached_property
    def heterogeneity(self) -> float:
        """Test by Bartlett, p of equal deviations of the arms, whatever their seeds share."""
        return stats.bartlett(self.own, self.n - 1.0)

    def bounds(self, control: int = 0) -> tuple[Array, Array]:
        """-> (K,), (K,): the difference of every arm to the control, and half of its interval."""
        assert self.spread
        difference, pooled, own, dof = self._errors(control)
        alpha = ALPHA / self.times
        joint = stats.critical(self._sizes(control), int(self.n[control]), self.spread.dof, alpha)
        return difference, np.maximum(joint * pooled, stats.quantile(alpha / self._arms, dof) * own)

    def against(self) -> list[Comparison]:
        """Compare every other arm with the control."""
        assert self.spread
        difference, half = self.bounds()
        _, pooled, own, dof = self._errors(0)
        alone = stats.two_sided(_over(difference, own), dof) * self._arms
        sizes, n = self._sizes(0), int(self.n[0])
        joint = [1 - stats.inside(t, sizes, n, self.spread.dof) for t in np.abs(difference) / pooled]
        p = np.clip(np.maximum(alone, joint) * self.times, 0, 1)
        return [Comparison(*map(float, each)) for each in zip(difference, half, p, strict=True)][1:]

    def above(self, control: int) -> NDArray[np.bool_]:
        """-> (K,): which arms are shown to be above one."""
        difference, half = self.bounds(control)
        found: NDArray[np.bool_] = difference > half
        return found

    @property
    def _arms(self) -> float:
        """Count arms as p of (b) is multiplied by."""
        return math.log2(max(2, len(self.n) + len(self.beside)))

    def _errors(self, control: int) -> tuple[Array, Array, Array, Array]:
        """-> four (K,): differences to an arm, their standard errors by (a) and by (b), degrees of freedom of (b)."""
        assert self.spread
        each = self.believed / self.n
        dof = stats.satterthwaite(each, each[control], self.dofs, self.dofs[control])
        dof = np.minimum(dof, 2 * np.minimum(self.dofs, self.dofs[control]))
        pooled = self.spread.deviation * np.sqrt(1 / self.n + 1 / self.n[control])
        return self.means - self.means[control], pooled, np.sqrt(each + each[control]), dof

    def _sizes(self, control: int) -> tuple[int, ...]:
        """List the sizes of all that are compared with an arm, planned ones too; `critical` knows the same again."""
        sizes = self._sorted.get(int(self.n[control]))
        if sizes is None:
            whole = sorted(chain(self.n.tolist(), self.beside))
            whole.remove(int(self.n[control]))
            sizes = self._sorted[int(self.n[control])] = tuple(whole)
        return sizes

    @cached_property
    def _sorted(self) -> dict[int, tuple[int, ...]]:
        return {}


class Decision:
    """What is claimed of a family: of its arms as they finished, and where some diverged, with those seeds as well."""

    def __init__(self, arms: Mapping[str, Outcome], control: str | None = None, looks: int = 0) -> None:
        names = sorted(arms, key=lambda name: name != control)
        self.control = control
        self.arms = arms
        lowest = min((value for arm in arms.values() for value in arm.values.values()), default=0.0)
        counted = {name: {**arm.values, **dict.fromkeys(arm.diverged, lowest)} for name, arm in arms.items()}
        self.diverged = {name for name, arm in arms.items() if arm.diverged}
        self.ranks = {name: float(np.mean(list(seeds.values()))) for name, seeds in counted.items() if seeds}
        self.names = [name for name in names if len(arms[name].values) > 1]
        beside = [arm.planned for name, arm in arms.items() if name not in self.names and arm.planned > 1]
        self.right = _right([arms[name] for name in self.names])
        self.family = Family([arms[name].values for name in self.names], beside, looks, self.right)
        self.counting = Family([counted[name] for name in self.names], beside, looks) if self.diverged else None

    @property
    def able(self) -> bool:
        return self.family.able

    @property
    def spread(self) -> Spread | None:
        return self.family.spread

    @cached_property
    def comparisons(self) -> Mapping[str, Comparison]:
        """Compare every arm that can be compared with the control."""
        if not self.able or self.control not in self.names:
            return {}
        plain = dict(zip(self.names[1:], self.family.against(), strict=True))
        if self.counting is None or not self.counting.able:
            return plain
        strict = dict(zip(self.names[1:], self.counting.against(), strict=True))
        return {
            name: _both(one, strict[name]) if {name, self.control} & self.diverged else one
            for name, one in plain.items()
        }

    def best(self, among: Sequence[str]) -> list[str]:
        """Keep those of `among` that may have the highest true mean: it is there with probability LEVEL or more."""
        tested = [name for name in self.names if name in set(among)]
        if not self.able:
            return tested
        at = {name: place for place, name in enumerate(self.names)}
        places = np.array([at[name] for name in tested], int)
        return [name for name in tested if not self._above(at[name])[places].any()]

    def _above(self, at: int) -> NDArray[np.bool_]:
        found = self.family.above(at)
        if self.counting is not None and self.counting.able:
            touched = np.array([name in self.diverged for name in self.names])
            found &= self.counting.above(at) | ~(touched | touched[at])
        self._agree(at, found)
        return found

    def _agree(self, at: int, found: NDArray[np.bool_]) -> None:
        """Let the comparison with the control count against it, whichever of the two is the better."""
        if not self.comparisons:
            return
        if at:
            one = self.comparisons[self.names[at]]
            found[0] = one.difference < 0 and one.p < ALPHA
            return
        for place, name in enumerate(self.names[1:], start=1):
            one = self.comparisons[name]
            found[place] = one.difference > 0 and one.p < ALPHA


def _right(arms: Sequence[Outcome]) -> list[images.Hits]:
    """Take of each arm its seeds in their order; none at all where one is not known or saw other images."""
    known = [arm.right for arm in arms if arm.right]
    if len(known) < len(arms) or len({right.images for right in known}) > 1:
        return []
    return [right.hits for right in known]


def claims(spread: Spread | None) -> bool:
    return spread is not None and spread.dof >= DOF


def _over(difference: Array, error: Array) -> Array:
    """Divide; where an arm and its control gave one number each for all seeds, any difference is beyond any bound."""
    found: Array = np.divide(np.abs(difference), error, out=np.where(difference == 0, 0.0, np.inf), where=error > 0)
    return found


def _both(one: Comparison, other: Comparison) -> Comparison:
    """Take what holds with failures and without: the larger p, and the end of the intervals that is nearer to zero."""
    sign = np.sign(one.difference) or 1.0
    nearer = other.half + sign * (one.difference - other.difference)
    if sign * other.difference <= 0:  # they do not even agree on the better
        return Comparison(one.difference, max(one.half, nearer), 1.0)
    return Comparison(one.difference, float(max(one.half, nearer)), max(one.p, other.p))
