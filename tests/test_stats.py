"""Against scipy, against published tables, against brute force, and with numbers derived by hand."""

import numpy as np
import pytest
import scipy.stats

from selfsup.sweeps.report.stats import (
    LEVEL,
    Spread,
    bartlett,
    blocked,
    coverage,
    critical,
    half_width,
    interaction,
    quantile,
    satterthwaite,
    seeds_needed,
    spread,
    two_sided,
)
from selfsup.sweeps.report.wording import places

VIT_B = [83.63, 83.66, 83.52, 83.46]  # MAE, FINETUNE.md: four fine-tuning seeds each
VIT_L = [85.95, 85.87, 85.76, 85.88]


def pooled(samples: list[list[float]]) -> Spread:
    found = spread(samples)
    assert found is not None
    return found


def draw(sizes: list[int], seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [list(rng.normal(0.5 * arm, 1, size)) for arm, size in enumerate(sizes)]


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
    expected = scipy.stats.ttest_ind(VIT_L, VIT_B)
    assert 1 - coverage(abs(expected.statistic), (4,), 4, 6) == pytest.approx(expected.pvalue, abs=1e-9)
    assert critical((4,), 4, 6, 0.05) == pytest.approx(scipy.stats.t.ppf(0.975, 6))


@pytest.mark.parametrize("sizes", [[3] * 12, [3, 2, 2, 5, 3], [4, 12, 2], [2, 3, 3]])
def test_dunnett_is_scipys(sizes: list[int]) -> None:
    """To the accuracy of scipy's random integration."""
    control, *samples = draw(sizes)
    found = pooled([control, *samples])
    expected = scipy.stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    own = tuple(sorted(sizes[1:]))
    p = [1 - coverage(abs(t), own, sizes[0], found.dof) for t in expected.statistic]
    assert p == pytest.approx(list(expected.pvalue), abs=1e-3)
    errors = found.deviation * np.sqrt(1 / np.array(sizes[1:]) + 1 / sizes[0])
    differences = [np.mean(values) - np.mean(control) for values in samples]
    upper = differences + critical(own, sizes[0], found.dof, 0.05) * errors
    assert upper == pytest.approx(expected.confidence_interval().high, abs=1e-2)


def test_critical_values_are_those_of_dunnetts_table() -> None:
    """Dunnett 1964, two-sided, 5 %, by comparisons and degrees of freedom."""
    table = {(1, 5): 2.57, (2, 5): 3.03, (4, 5): 3.48, (1, 10): 2.23, (2, 10): 2.57, (4, 10): 2.89, (3, 20): 2.54}
    assert {key: round(critical((2,) * key[0], 2, key[1], 0.05), 2) for key in table} == table


def test_welchs_degrees_of_freedom_are_scipys() -> None:
    first, second = draw([4, 7], seed=3)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False)
    parts = [np.array([np.var(values, ddof=1) / len(values)]) for values in (first, second)]
    dof = satterthwaite(*parts, np.array([3.0]), np.array([6.0]))
    assert dof == pytest.approx([expected.df], abs=0.01)
    assert dof <= expected.df  # rounded down
    t = (np.mean(first) - np.mean(second)) / np.sqrt(sum(parts))
    assert two_sided(t, dof) == pytest.approx([expected.pvalue], abs=1e-3)
    assert satterthwaite(np.zeros(1), np.zeros(1), np.array([3.0]), np.array([6.0])) == pytest.approx([9.0])


def test_quantiles_are_students() -> None:
    dof = np.array([1.0, 1.37, 4.0, 9.99, 300.0])
    assert quantile(0.02, dof) == pytest.approx(scipy.stats.t.isf(0.01, dof))


def test_blocks_leave_what_a_model_of_arms_and_seeds_leaves() -> None:
    """By least squares on dummies of arms and seeds."""
    values = np.random.default_rng(7).normal(size=(4, 3)) + 5 * np.random.default_rng(8).normal(size=3)
    arm, seed = (axis.ravel() for axis in np.indices(values.shape))
    design = np.stack([*(arm == each for each in range(4)), *(seed == each for each in range(1, 3))], 1).astype(float)
    _, (left,), *_ = np.linalg.lstsq(design, values.ravel(), rcond=None)
    found, _ = blocked(values)
    assert found == (pytest.approx((left / 6) ** 0.5), 6)


def test_variances_about_the_seeds_are_right_on_average() -> None:
    """Grubbs: of arms that deviate by 1, 2, 3 and 4, whatever their seeds share."""
    rng = np.random.default_rng(9)
    draws = 10 * rng.normal(size=(300, 1, 99)) + np.arange(1, 5)[:, None] * rng.normal(size=(300, 4, 99))
    found = np.mean([blocked(values)[1] for values in draws], axis=0)
    assert found == pytest.approx([1, 4, 9, 16], rel=0.05, abs=0.1)
    pair = np.array([[1.0, 2.0, 6.0, 4.0], [1.5, 1.0, 5.0, 5.0]])
    assert blocked(pair)[1].sum() == pytest.approx(np.var(pair[0] - pair[1], ddof=1))


def test_bartletts_test_is_scipys() -> None:
    samples = draw([3, 5, 4])
    variances, dof = np.array([np.var(values, ddof=1) for values in samples]), np.array([2.0, 4.0, 3.0])
    assert bartlett(variances, dof) == pytest.approx(scipy.stats.bartlett(*samples).pvalue)
    assert bartlett(np.array([0.0, 1.0]), np.array([2.0, 2.0])) == 1.0


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


def test_seeds_needed_have_the_power_that_they_are_needed_for() -> None:
    """Draw the power of Student's test of two arms: 80 % is reached, and not with a seed less."""
    found = seeds_needed(Spread(1.0, 20), 1.5, arms=2)
    draws = np.random.default_rng(0).normal([[[0.0]], [[1.5]]], 1, size=(2, 20_000, found.n))
    power = [np.mean(scipy.stats.ttest_ind(*draws[:, :, :n], axis=1).pvalue < 0.05) for n in (found.n, found.n - 1)]
    assert power[0] > 0.79
    assert power[1] < 0.81


def test_seeds_needed_grow_with_arms_and_with_what_is_not_known_of_the_deviation() -> None:
    few, many = (seeds_needed(Spread(0.5, 8), 0.5, arms=arms) for arms in (3, 12))
    assert few.n < many.n
    assert few.low < few.n < few.high
    low, high = (0.5 * (8 / scipy.stats.chi2.isf(tail, 8)) ** 0.5 for tail in (0.025, 0.975))
    assert few[1:] == (seeds_needed(Spread(low, 8), 0.5, 3).n, seeds_needed(Spread(high, 8), 0.5, 3).n)
    assert seeds_needed(Spread(1e-6, 8), 0.5, 3).n == 2


def test_two_significant_digits_of_the_interval() -> None:
    assert [places(half) for half in (0.1234, 0.0996, 1.26, 9.96, 12.7, 250.0)] == [2, 2, 1, 0, 0, 0]
    assert places(None) == 2
