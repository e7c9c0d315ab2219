"""Against scipy, against published tables, against brute force, and with numbers derived by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from selfsup.reporting.stats import (
    LEVEL,
    Spread,
    contenders,
    dunnett,
    half_width,
    interaction,
    places,
    seeds_needed,
    sign_flips,
    spread,
)

VIT_B = [83.63, 83.66, 83.52, 83.46]  # MAE, FINETUNE.md: four fine-tuning seeds each
VIT_L = [85.95, 85.87, 85.76, 85.88]


def pooled(samples: list[list[float]]) -> Spread:
    found = spread(samples)
    assert found is not None
    return found


def draw(sizes: list[int], seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [list(rng.normal(0.5 * arm, 1, size)) for arm, size in enumerate(sizes)]


def critical(arms: int, dof: int) -> float:
    """Of equal sizes, read off the half-width."""
    [first, *_] = dunnett([[0.0, 0.0]] * arms, [0.0, 0.0], Spread(1.0, dof))
    return first.half  # the standard error of a difference of two means of two is 1


def test_pooled_deviation_and_interval_by_hand() -> None:
    # squares about the means: 0.026275 and 0.0185, over 3 + 3
    found = pooled([VIT_B, VIT_L])
    assert found == pytest.approx(((0.044775 / 6) ** 0.5, 6))
    assert half_width(found, 4) == pytest.approx(2.446912 * 0.0863858 / 2, abs=1e-6)  # t of 6 degrees: 2.446912


def test_the_interval_of_one_arm_is_the_ordinary_one() -> None:
    low, high = scipy.stats.ttest_1samp(VIT_B, 0).confidence_interval(LEVEL)
    assert half_width(pooled([VIT_B]), 4) == pytest.approx((high - low) / 2)


def test_one_seed_lends_nothing_and_equal_seeds_have_no_spread() -> None:
    assert spread([[1.0], [2.0]]) is None
    assert spread([[0.1 + 0.2, 0.3], [5.0, 5.0]]) is None  # apart by rounding alone
    assert spread([]) is None
    assert pooled([[1.0], VIT_B, []]) == pooled([VIT_B])


def test_one_comparison_is_the_t_test() -> None:
    [found] = dunnett([VIT_L], VIT_B, pooled([VIT_B, VIT_L]))
    expected = scipy.stats.ttest_ind(VIT_L, VIT_B)
    low, high = expected.confidence_interval(LEVEL)
    assert found == pytest.approx(((low + high) / 2, (high - low) / 2, expected.pvalue), abs=1e-9)


@pytest.mark.parametrize("sizes", [[3] * 12, [3, 2, 2, 5, 3], [4, 12, 2], [2, 3, 3]])
def test_dunnett_is_scipys(sizes: list[int]) -> None:
    """To the accuracy of scipy's random integration."""
    control, *samples = draw(sizes)
    found = dunnett(samples, control, pooled([control, *samples]))
    expected = scipy.stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    assert [each.p for each in found] == pytest.approx(list(expected.pvalue), abs=1e-3)
    upper = [each.difference + each.half for each in found]
    assert upper == pytest.approx(list(expected.confidence_interval().high), abs=1e-2)


def test_critical_values_are_those_of_dunnetts_table() -> None:
    """Dunnett 1964, two-sided, 5 %, by comparisons and degrees of freedom."""
    table = {(1, 5): 2.57, (2, 5): 3.03, (4, 5): 3.48, (1, 10): 2.23, (2, 10): 2.57, (4, 10): 2.89, (3, 20): 2.54}
    assert {key: round(critical(*key), 2) for key in table} == table


def test_five_in_a_hundred_families_of_nothing_raise_an_alarm() -> None:
    rng, arms, n = np.random.default_rng(1), 8, 3
    values = rng.normal(size=(20_000, arms + 1, n))
    deviation = np.sqrt(values.var(2, ddof=1).mean(1))
    means = values.mean(2)
    largest = np.abs(means[:, 1:] - means[:, :1]).max(1) / (deviation * (2 / n) ** 0.5)
    assert (largest > critical(arms, (arms + 1) * (n - 1))).mean() == pytest.approx(0.05, abs=0.005)


def test_the_best_is_kept_in_95_of_100_or_more_and_the_clearly_worse_are_not() -> None:
    families = np.random.default_rng(2).normal(size=(2000, 5, 3)).tolist()
    kept = [contenders(family, pooled(family))[0] for family in families]  # all equal: the hardest case
    assert 0.95 < np.mean(kept) < 0.99
    assert contenders([[1.0, 1.1], [9.0, 9.1], [9.1, 9.0]], Spread(0.07, 3)) == [False, True, True]
    assert contenders([[1.0, 1.1]], Spread(0.07, 3)) == [True]


def test_an_arm_is_ruled_out_by_the_best_as_dunnett_tells_it_from_the_default() -> None:
    for family in np.random.default_rng(5).normal([[0.0], [1.5], [2.0]], 1, size=(200, 3, 3)).tolist():
        control, *samples = sorted(family, key=np.mean, reverse=True)  # the default is the best
        found = pooled(family)
        told_apart = [each.p < 0.05 for each in dunnett(samples, control, found)]
        assert contenders([control, *samples], found)[1:] == [not apart for apart in told_apart]
        few = contenders([control, samples[0]], found, beside=[3])
        assert few[1] is not told_apart[0]


def test_sign_flips_are_those_of_brute_force() -> None:
    differences = np.random.default_rng(3).normal([0.8, 0.0, -0.3], 1, size=(7, 3))
    length = np.sqrt((differences**2).sum(0))
    all_signs = np.array(list(itertools.product([1, -1], repeat=7)))
    largest = [np.abs((signs[:, None] * differences).sum(0) / length).max() for signs in all_signs]
    expected = [np.mean([value >= own - 1e-9 for value in largest]) for own in np.abs(differences.sum(0) / length)]
    assert sign_flips(differences) == pytest.approx(expected)


def test_six_seeds_all_above_are_the_first_that_flips_can_call_different() -> None:
    assert sign_flips(np.ones((6, 1)) + np.arange(6)[:, None]) == pytest.approx([2 / 64])
    assert sign_flips(np.zeros((6, 1))) == pytest.approx([1.0])


def test_one_pair_of_flips_is_scipys_permutation_test() -> None:
    first, second = np.random.default_rng(4).normal([[0.0], [0.7]], 1, size=(2, 8))
    expected = scipy.stats.permutation_test(
        (first, second), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flips((first - second)[:, None]) == pytest.approx([expected.pvalue])


def test_interaction_is_what_a_model_without_it_leaves() -> None:
    """The F test of two nested linear models, fitted by least squares; the second is the means themselves."""
    values = np.random.default_rng(6).normal([[[0.0], [1.0], [2.0]], [[0.0], [1.0], [4.0]]], 1, size=(2, 3, 4))
    rows, columns, _ = np.indices(values.shape)
    ones = [np.ones(values.size), rows.ravel(), columns.ravel() == 1, columns.ravel() == 2]
    _, (left,), *_ = np.linalg.lstsq(np.stack(ones, 1).astype(float), values.ravel(), rcond=None)
    within = float(np.square(values - values.mean(2, keepdims=True)).sum())
    f = (left - within) / 2 / (within / 18)
    found = interaction(values.mean(2), 4, pooled(values.reshape(6, 4).tolist()))
    assert found == (pytest.approx(f), (2, 18), pytest.approx(scipy.stats.f.sf(f, 2, 18)))
    assert interaction(np.array([[1.0, 2.0], [3.0, 4.0]]), 2, Spread(1.0, 4)).p == 1


def test_seeds_needed_at_a_deviation_of_a_fifth() -> None:
    # t / sqrt(n) must be 1: n = 6 gives 2.571 / 2.449, n = 7 gives 2.447 / 2.646. Over 12 arms: 4 gives 2.028 / 2
    assert seeds_needed(0.2, 0.2, arms=1) == 7
    assert seeds_needed(0.2, 0.2, arms=12) == 5
    assert (seeds_needed(0.2, 0.3, arms=1), seeds_needed(0.2, 0.3, arms=12)) == (5, 3)
    assert seeds_needed(0.0, 0.2, arms=1) == 2


def test_two_significant_digits_of_the_interval() -> None:
    assert [places(half) for half in (0.1234, 0.0996, 1.26, 9.96, 12.7, 250.0)] == [2, 2, 1, 0, 0, 0]
    assert places(None) == 2
