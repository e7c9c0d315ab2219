"""The decision rule: numbers by hand and by scipy. How often it errs is in test_calibration.py."""

import numpy as np
import pytest
import scipy.stats

from selfsup.sweeps.report.decision import Decision, Family, ImageHits, Outcome

ONE = [[70.0, 72.0, 74.5], [71.0, 72.5, 75.0], [60.0, 63.0, 64.0], [70.2, 71.0, 73.9]]


def family(rows: list[list[float]], *, apart: bool = False, **more: object) -> Family:
    """apart: no seed is common to two arms."""
    arms = [{seed + 10 * place * apart: value for seed, value in enumerate(row)} for place, row in enumerate(rows)]
    return Family(arms, **more)  # type: ignore[arg-type]


def outcome(*values: float | None, pending: int = 0) -> Outcome:
    """None: diverged. pending: more seeds that have not ended."""
    held = {seed: value for seed, value in enumerate(values) if value is not None}
    lost = frozenset(range(len(values))) - held.keys()
    late = frozenset(range(len(values), len(values) + pending))
    return Outcome(held, lost, late, len(values) + pending)


def test_seeds_are_blocks_where_all_arms_have_the_same_and_three_degrees_are_left() -> None:
    assert family(ONE).blocked
    assert not family(ONE, apart=True).blocked
    assert not family(ONE[:2]).blocked  # two degrees
    assert family([[*row, 70.0 + at] for at, row in enumerate(ONE[:2])]).blocked
    assert not family([*ONE[:3], ONE[3][:2]]).blocked


def test_with_blocks_p_is_the_larger_of_dunnetts_of_the_residuals_and_of_welchs() -> None:
    found = family(ONE)
    values = np.array(ONE)
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    deviation = (np.square(left).sum() / 6) ** 0.5
    assert found.spread == (pytest.approx(deviation), 6)
    lead = values[1:].mean(1) - values[0].mean()
    t = np.abs(lead) / (deviation * (2 / 3) ** 0.5)
    three = scipy.stats.multivariate_t(shape=np.full((3, 3), 0.5) + np.eye(3) / 2, df=6, seed=0)
    joint = [1 - three.cdf(np.full(3, one), lower_limit=np.full(3, -one)) for one in t]
    mean = np.square(left).sum(1) / 2
    own = np.linalg.solve(np.eye(4) / 2 + 1 / 16, mean)  # what has these for expectations
    assert (own < 0).any()
    own = np.maximum(own, mean / 4) / 3
    dof = (own[1:] + own[0]) ** 2 / ((own[1:] ** 2 + own[0] ** 2) / 2)
    alone = 2 * scipy.stats.t.sf(np.abs(lead) / (own[1:] + own[0]) ** 0.5, dof)
    expected = np.minimum(1, np.maximum(joint, 2 * alone))
    assert [one.difference for one in found.against()] == pytest.approx(lead)
    assert [one.p for one in found.against()] == pytest.approx(expected, abs=1e-3)


def test_no_deviation_is_below_what_flips_of_images_make() -> None:
    """Seeds disagree on 40, 2 and 1 of 100 images: variances of 4000, 200, 100 / 2 / 100; those of their accuracies
    are 0, 0 and 0.5.
    """
    right = {"a": [range(50), range(20, 70)], "b": [range(70), range(1, 71)], "c": [range(60), range(61)]}
    hits = {name: np.array([np.isin(range(100), list(seed)) for seed in seeds]) for name, seeds in right.items()}
    arms = {name: Outcome(dict(enumerate(100 * held.mean(1)))) for name, held in hits.items()}
    known = {name: arm._replace(hits=ImageHits("same", hits[name])) for name, arm in arms.items()}
    plain, floored = Decision(arms, "a"), Decision(known, "a")
    assert plain.spread == (pytest.approx((0.5 / 3) ** 0.5), 3)
    assert floored.spread == (pytest.approx((21.5 / 3) ** 0.5), 3)
    assert floored.family.floored == pytest.approx([20, 1, 0.5])
    assert (plain.comparisons["c"].p < 0.05) > (floored.comparisons["c"].p < 0.05)
    other = {**known, "c": arms["c"]._replace(hits=ImageHits("others", hits["c"]))}
    assert Decision(other, "a").spread == plain.spread


def test_seeds_that_agree_in_their_accuracy_but_not_on_images_have_the_deviation_of_flips() -> None:
    """Seeds disagree on 40, 2 and 2 of 100 images: variances of 20, 1 and 1, pooled 22 / 3."""
    right = {"a": [range(50), range(20, 70)], "b": [range(70), range(1, 71)], "c": [range(90), range(1, 91)]}
    hits = {name: np.array([np.isin(range(100), list(seed)) for seed in seeds]) for name, seeds in right.items()}
    arms = {name: Outcome({0: held.mean() * 100, 1: held.mean() * 100}) for name, held in hits.items()}
    assert Decision(arms, "a").spread is None
    found = Decision({name: arm._replace(hits=ImageHits("same", hits[name])) for name, arm in arms.items()}, "a")
    assert found.spread == (pytest.approx((22 / 3) ** 0.5), 3)
    dunnett = 0.5 + np.eye(2) / 2
    t = 40 / (22 / 3) ** 0.5
    joint = 1 - scipy.stats.multivariate_t(shape=dunnett, df=3, seed=0).cdf([t, t], lower_limit=[-t, -t])
    dof = np.floor(100 * 21**2 / (20**2 + 1)) / 100  # Welch's, of one degree each
    alone = 2 * scipy.stats.t.sf(40 / 10.5**0.5, dof) * np.log2(3)
    assert found.comparisons["c"].p == pytest.approx(max(joint, alone), rel=1e-3)
    same = {name: arm._replace(hits=ImageHits("same", np.vstack([hits[name][:1]] * 2))) for name, arm in arms.items()}
    assert Decision(same, "a").spread is None  # the same images: chance cannot be judged


def test_two_arms_are_students_paired_test_from_four_seeds_and_welchs_below() -> None:
    first, second = [70.0, 72.0, 74.5, 71.0], [72.0, 73.0, 77.0, 72.5]
    [one] = family([first, second]).against()
    assert one.p == pytest.approx(scipy.stats.ttest_rel(second, first).pvalue)
    [one] = family([first[:3], second[:3]]).against()
    assert one.p == pytest.approx(scipy.stats.ttest_ind(second[:3], first[:3], equal_var=False).pvalue, rel=1e-2)


def test_an_interval_and_its_p_say_the_same() -> None:
    rng = np.random.default_rng(0)
    for scale in ([1, 1, 1, 1], [4, 1, 1, 1], [1, 3, 1, 0.2]):
        for rows in rng.normal([[0.0], [1.0], [2.0], [4.0]], np.reshape(scale, (4, 1)), size=(12, 4, 3)).tolist():
            for apart in (False, True):
                found = family(rows, apart=apart)
                assert all((one.p < 0.05) == (abs(one.difference) > one.half) for one in found.against())


def test_a_default_that_deviates_more_is_judged_by_its_own_deviation() -> None:
    """What Dunnett's test calls worlds apart, since the others lie so close."""
    rows = [[70.0, 78.0, 74.0], [66.0, 66.1, 66.2], [66.1, 66.0, 66.2], [66.2, 66.1, 66.0]]
    expected = scipy.stats.dunnett(*rows[1:], control=rows[0], rng=np.random.default_rng(0)).pvalue
    assert max(expected) < 0.01
    assert min(one.p for one in family(rows, apart=True).against()) > 0.1


def test_marks_and_comparisons_never_contradict() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        sizes = rng.integers(2, 6, size=4)
        arms = {f"{k}": outcome(*rng.normal(1.5 * k, 1 + k % 2, size=n)) for k, n in enumerate(sizes)}
        decided = Decision(arms, "0")
        best = decided.best(list(arms))
        assert best
        for name, one in decided.comparisons.items():
            if one.p < 0.05:
                assert (name if one.difference < 0 else "0") not in best


def test_planned_arms_count_before_they_have_results() -> None:
    arms = {"a": outcome(70.0, 72.0, 71.0), "b": outcome(75.0, 77.5, 76.0)}
    waiting = {f"{at}": outcome(pending=3) for at in range(6)}
    alone, among = (Decision(held, "a").comparisons["b"] for held in (arms, {**arms, **waiting}))
    assert among.p > alone.p
    assert among.half > alone.half
    assert among.difference == alone.difference


def test_every_earlier_look_doubles_p() -> None:
    first, third = family(ONE).against()[1], family(ONE, looks=2).against()[1]
    assert third.p == pytest.approx(4 * first.p)
    assert third.half > first.half
    for looks in range(4):
        one = family(ONE, looks=looks).against()[1]
        assert (one.p < 0.05) == (abs(one.difference) > one.half)


def test_what_is_claimed_of_an_arm_that_diverged_holds_with_those_seeds_too() -> None:
    """Three good seeds of five are above the default; with the other two at the lowest value of all they are not."""
    arms = {"default": outcome(70.0, 70.5, 71.0, 70.2, 70.8), "other": outcome(80.0, 81.0, None, None, 79.5)}
    found = Decision(arms, "default")
    one = found.comparisons["other"]
    whole = Family([arms["default"].values, {0: 80.0, 1: 81.0, 2: 70.0, 3: 70.0, 4: 79.5}]).against()[0]
    survivors = Family([arms["default"].values, arms["other"].values]).against()[0]
    assert survivors.p < 0.05
    assert one.p == whole.p > 0.05
    assert one.difference == survivors.difference
    assert abs(one.difference) < one.half
    assert found.best(["default", "other"]) == ["default", "other"]


def test_a_claim_against_an_arm_that_diverged_stands() -> None:
    arms = {"default": outcome(70.0, 70.5, 71.0, 70.2), "other": outcome(60.0, 60.5, None, 60.2)}
    one = Decision(arms, "default").comparisons["other"]
    assert one.p < 0.05
    assert one.difference + one.half < 0


def test_the_highest_mean_counts_failures() -> None:
    arms = {"a": outcome(70.0, 71.0, 72.0), "b": outcome(73.0, 73.5, None)}
    assert Decision(arms, "a").ranks == {"a": 71.0, "b": pytest.approx((73 + 73.5 + 70) / 3)}


def test_arms_in_step_to_the_last_digit_are_no_evidence() -> None:
    found = family([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [5.0, 6.0, 7.0]])
    assert not found.blocked
    assert found.spread == (1.0, 6)
    assert not family([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [3.0, 3.0]]).can_claim
