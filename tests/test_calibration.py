"""How often the decision rule errs, over sweeps with a known truth: false claims, coverage, the best, power.

Bounds are those of the notes: about 5 % false claims in a family (with what chance adds to so many draws), whatever the
deviations. A change of the rule that makes it bolder than it may be fails here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from selfsup.sweeps.report import stats
from selfsup.sweeps.report.decision import ALPHA, Decision, Family, Outcome

Array = NDArray[np.float64]


class Truth(NamedTuple):
    """K arms of n seeds, all with the mean 0. shared: correlation of arms at a seed; sizes: seeds of each arm."""

    deviations: tuple[float, ...]
    n: int
    shared: float = 0.0
    noise: str = "normal"
    grain: float = 0.0  # numbers are rounded to it
    sizes: tuple[int, ...] = ()


def grid() -> list[Truth]:
    """Deviations of the default and of others, 1 where not told."""
    found = []
    for arms, n in ((3, 3), (4, 3), (8, 3), (30, 3), (2, 4), (5, 2), (8, 2), (4, 5), (8, 5)):
        ones = (1.0,) * arms
        odd = {ones, (4.0, *ones[1:]), (2.0, *ones[1:]), (10.0, *ones[1:]), (0.25, *ones[1:]), (1.0, 4.0, *ones[2:])}
        odd |= {(1.0, 4.0, 4.0, *ones[3:]), (4.0, 4.0, *ones[2:])} if arms > 3 else set()
        found += [Truth(deviations, n, shared) for deviations in sorted(odd) for shared in (0.0, 0.6)]
    found += [Truth((1.0,) * 4, 3, noise=noise) for noise in ("t3", "laplace", "skewed")]
    found += [Truth((1.0,) * 4, 3, grain=grain) for grain in (0.5, 2.0)]
    odd = ((3.0, 1, 1, 1, 1), (1.0, 4, 1, 1, 1), (1.0,) * 5)
    return found + [Truth(each, 5, sizes=sizes) for each in odd for sizes in ((2, 5, 5, 5, 5), (5, 2, 5, 5, 5))]


FEW = [
    Truth((1.0,) * 4, 3),
    Truth((1.0,) * 4, 3, 0.6),
    Truth((4.0, 1, 1, 1), 3),
    Truth((4.0,) + (1.0,) * 7, 3, 0.6),
    Truth((1.0, 4, 1, 1), 3),
    Truth((3.0, 1, 1, 1, 1), 5, sizes=(2, 5, 5, 5, 5)),
]


def draw(truth: Truth, times: int, seed: int = 0) -> Array:
    """(times, K, n)"""
    rng = np.random.default_rng(seed)
    kinds = {
        "normal": rng.standard_normal,
        "t3": lambda size: rng.standard_t(3, size) / 3**0.5,
        "laplace": lambda size: rng.laplace(size=size) / 2**0.5,
        "skewed": lambda size: 1 - rng.exponential(size=size),
    }
    noise, arms = kinds[truth.noise], len(truth.deviations)
    own = np.reshape(truth.deviations, (arms, 1)) * noise((times, arms, truth.n))
    found: Array = truth.shared**0.5 * noise((times, 1, truth.n)) + (1 - truth.shared) ** 0.5 * own
    return np.round(found / truth.grain) * truth.grain if truth.grain else found


def families(truth: Truth, values: Array) -> list[Family]:
    sizes = truth.sizes or (truth.n,) * len(truth.deviations)
    return [Family([dict(enumerate(row[:n])) for row, n in zip(one, sizes, strict=True)]) for one in values.tolist()]


def errors(truth: Truth, times: int) -> tuple[float, float]:
    """In percent: families with a false claim, and those in which an arm that is as good as any is not kept."""
    testable = [family for family in families(truth, draw(truth, times)) if family.can_claim]
    false = sum(bool((np.abs(difference) > half)[1:].any()) for difference, half in (one.bounds() for one in testable))
    lost = sum(bool(family.better(len(truth.deviations) - 1).any()) for family in testable)
    return 100 * false / times, 100 * lost / times


def power(deviations: Sequence[float], n: int, shared: float, lead: float, times: int) -> float:
    """In percent, of one arm that is better than the default by so much."""
    truth = Truth(tuple(deviations), n, shared)
    values = draw(truth, times, seed=1)
    values[:, 1] += lead
    found = (family.bounds() for family in families(truth, values))
    return 100 * float(np.mean([difference[1] > half[1] for difference, half in found]))


@pytest.mark.parametrize("truth", FEW, ids=str)
def test_false_claims_are_rare_whatever_the_deviations(truth: Truth) -> None:
    false, lost = errors(truth, 1000)
    assert false < 6.4  # 5 % and two of the draws' standard errors
    assert lost < 4


def test_blocks_lift_power_where_seeds_are_shared() -> None:
    alone, shared = (power([1.0] * 4, 3, correlation, 4.0, 600) for correlation in (0.0, 0.6))
    assert alone > 50
    assert shared > 85
    assert power([1.0] * 4, 5, 0.6, 2.0, 600) > 88


def test_intervals_of_means_cover_as_they_say() -> None:
    """A noisy arm, and arms with common seeds: both broke intervals from a pooled deviation."""
    for truth in (Truth((1.0, 4, 1, 1), 3), Truth((1.0,) * 8, 2, 0.6)):
        values = draw(truth, 1500)[:, 1]
        own = [(stats.spread([row]), float(np.mean(row))) for row in values.tolist()]
        covered = [abs(mean) <= stats.half_width(spread, truth.n) for spread, mean in own if spread]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.017)


def flips(arms: int, n: int, number: int, times: int, lead: float = 0.0) -> tuple[float, float]:
    """In percent: families with a claim of the second arm or of any other, without the floor and with it. Every seed
    has each of some images right independently, with the chance of the image; of the second arm with more.
    """
    rng, found = np.random.default_rng(11), np.zeros(2)
    for _ in range(times):
        chance = np.repeat(rng.beta(2, 1, (1, 1, number)), arms, axis=0)
        chance[1] = np.minimum(1, chance[1] + lead)
        hits = rng.random((arms, n, number)) < chance
        values = [dict(enumerate(row)) for row in (100 * hits.mean(2)).tolist()]
        for at, family in enumerate((Family(values), Family(values, hits=list(hits)))):
            difference, half = family.bounds() if family.can_claim else (np.zeros(1), np.zeros(1))
            found[at] += (np.abs(difference) > half)[1 : 2 if lead else None].any()
    without, floored = 100 * found / times
    return float(without), float(floored)


def test_flips_of_images_are_rarely_claimed() -> None:
    without, floored = flips(4, 3, 300, 400)
    assert without < 6.4
    assert floored < 1


def survival(times: int, mean: float) -> float:
    """In percent: an arm with three times the spread, whose seeds below -1 diverge, is called better."""
    better = 0
    rng = np.random.default_rng(7)
    for values in rng.standard_normal((times, 4, 5)):
        values[1] = 3 * values[1] + mean
        arms = {f"{k}": Outcome(dict(enumerate(row)), planned=5) for k, row in enumerate(values.tolist())}
        lost = frozenset(np.flatnonzero(values[1] < -1).tolist())
        held = {seed: value for seed, value in arms["1"].values.items() if seed not in lost}
        arms["1"] = Outcome(held, lost, planned=5)
        one = Decision(arms, "0").comparisons.get("1")
        better += one is not None and one.p < ALPHA and one.difference > 0
    return 100 * better / times


def test_an_arm_is_not_better_for_what_of_it_survived() -> None:
    assert survival(100, 0.0) < 10


@pytest.mark.slow
@pytest.mark.parametrize("truth", grid(), ids=str)
def test_false_claims_over_the_whole_grid(truth: Truth) -> None:
    false, lost = errors(truth, 6000)
    assert false < 6.5  # the default ten times noisier, of 2 seeds, is the worst; elsewhere it is below 5.5
    assert lost < 5.5


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "n"), [(3, 2), (4, 2), (8, 2), (2, 3), (4, 3), (8, 3)])
@pytest.mark.parametrize("number", [100, 400])
def test_flips_of_few_images_over_many_draws(arms: int, n: int, number: int) -> None:
    without, floored = flips(arms, n, number, 4000)
    assert without < 6.4
    assert floored < 1


@pytest.mark.slow
def test_survivors_over_many_draws() -> None:
    assert survival(1500, 0.0) < 6
    assert survival(1500, -1.0) < 2


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "last"), [(2, 8), (4, 6), (8, 5)])
def test_seeds_added_until_something_is_claimed(arms: int, last: int) -> None:
    """From 3 seeds on, a look at each: below twice the 5 % of one look."""
    hits = 0
    for values in np.random.default_rng(3).standard_normal((3000, arms, last)).tolist():
        for looks, n in enumerate(range(3, last + 1)):
            family = Family([dict(enumerate(row[:n])) for row in values], looks=looks)
            difference, half = family.bounds()
            if family.can_claim and (np.abs(difference) > half)[1:].any():
                hits += 1
                break
    assert hits / 3000 < 0.1
