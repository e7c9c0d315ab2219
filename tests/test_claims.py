"""What a table may not claim: of failures, of pending arms, of one seed, after a look; and what it warns of."""

from dataclasses import replace

import pytest
from test_tables import NUMBERS, cells, tables
from toy_sweep import KNN, LINEAR, arm, study, sweep

from selfsup.sweeps.registration import RegisteredPlan
from selfsup.sweeps.report.notes import families
from selfsup.sweeps.report.provenance import methods
from selfsup.sweeps.report.tables import ablation


def test_seeds_that_diverged_are_told_in_the_sentence_and_count_against_a_claim() -> None:
    lost = "non-finite: step 9: loss is nan"
    numbers = {
        "0.75, 8": [70.0, 70.5, 71.0, 70.2],
        "0.5, 8": [80.0, 81.0, lost, lost],
        "0.9, 8": [69.0, 70.1, 70.6, 69.5],
    }
    [ratio] = tables(numbers)
    found = cells(ratio)["0.5"]
    assert (found.n, found.planned, found.diverged, found.mean) == (2, 4, 2, 80.5)
    assert found.p is not None
    assert found.p > 0.05
    assert "0.75 cannot be told from 0.5 or 0.9" in ratio.verdict[0]
    assert ratio.verdict[0].endswith("; 2 of 4 seeds of 0.5 diverged.")


def test_bold_goes_to_the_highest_mean_with_failures_at_the_lowest_value() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 76.0, 77.0], "0.5, 8": [75.9, 76.1, "collapsed: RankMe 1 < 2 at step 5"]})
    assert [cell.best for cell in cells(ratio).values()] == [False, True]  # 74.3 against (75.9 + 76.1 + 70) / 3 = 74
    [ratio] = tables({"0.75, 8": [70.0, 76.0, 77.0], "0.5, 8": [75.9, 76.1, "infrastructure: a disk is lost"]})
    assert [cell.best for cell in cells(ratio).values()] == [True, False]  # that says nothing of the setting


def test_a_number_that_is_not_finite_is_an_outcome_and_a_missing_one_is_not() -> None:
    one, results = study({"0.75, 8": [70.0, 71.0, 72.0], "0.5, 8": [60.0, 61.0, 62.0]})
    results[3] = replace(results[3], metrics={KNN: float("nan")})
    results[4] = replace(results[4], metrics={})
    whole = ablation(sweep(one), results)
    cell = cells(whole.tables[0])["0.5"]
    assert (cell.n, cell.diverged, cell.pending) == (1, 1, 0)
    assert whole.integrity["deviations"] == (
        "mae: mask_ratio=0.5: seed 0: done, knn top-1 not finite",
        "mae: mask_ratio=0.5: seed 1: done, without knn top-1",
    )
    assert whole.tables[0].lines[0].failures == (
        "seed 0: done, knn top-1 not finite",
        "seed 1: done, without knn top-1",
    )


def test_while_arms_are_pending_nothing_is_the_best() -> None:
    numbers = {"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [30.0, 31.5, 33.0], "0.9, 8": [40.0, 41.0, 42.5]}
    one, results = study({**numbers, "0.6, 8": [1.0, 2.0, 3.0]})
    [ratio] = ablation(sweep(one), results).tables
    assert ratio.verdict[0].endswith("; 0.75 is the best.")
    lost = [replace(run, status="failed", reason="infrastructure: a disk", metrics={}) for run in results[9:]]
    [ended] = ablation(sweep(one), [*results[:9], *lost]).tables
    assert "; of the 3 with enough seeds 0.75 may be the best" in ended.verdict[0], "all have ended: no `so far`"
    [early] = ablation(sweep(one), results[:9]).tables
    assert early.verdict[0].endswith("; of 3 with enough seeds so far 0.75 may be the best; pending: 0.6.")
    [three] = tables(numbers)
    assert cells(early)["0.9"].p > cells(three)["0.9"].p  # of four planned arms, not of three  # type: ignore[operator]


def test_an_arm_of_one_seed_is_never_bold() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [90.0], "0.9, 8": [69.0, 70.0, 71.5]})
    assert [(cell.best, cell.tied) for cell in cells(ratio).values()] == [(False, False), (True, True), (False, True)]
    assert "too few seeds to tell about 0.5" in ratio.verdict[0]


def test_deviations_that_are_not_alike_are_warned_of() -> None:
    [ratio] = tables({"0.75, 8": [50.0, 70.0, 60.0], "0.5, 8": [60.0, 60.1, 60.3], "0.9, 8": [61.0, 61.2, 61.1]})
    assert "Of knn top-1 deviations between seeds are not alike (Bartlett, p = " in ratio.note
    [ratio] = tables({"0.75, 8": [50.0, 53.0, 52.0], "0.5, 8": [60.0, 60.1, 63.0], "0.9, 8": [61.0, 63.2, 61.1]})
    assert "not alike" not in ratio.note


def test_of_other_metrics_than_the_primary_nothing_is_claimed() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [30.0, 31.5, 33.0]})
    results = [replace(run, metrics=dict(run.metrics) | {LINEAR: run.metrics[KNN] / 2}) for run in results]
    whole = sweep(one, metrics=[KNN, LINEAR])
    [both] = ablation(whole, results).tables
    [first] = ablation(replace(whole, primary=KNN), results).tables
    assert len(both.verdict) == 2
    assert first.verdict == both.verdict[:1]
    assert first.lines == both.lines


def test_seeds_that_were_added_after_a_look_double_p() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [67.0, 68.5, 69.0], "0.9, 8": [66.0, 70.0, 69.0]})
    whole = sweep(one)
    ids = {f"mae: {arm.name}": dict(list(arm.ids.items())[:2]) for arm in one.arms}
    before = RegisteredPlan("0ld", 0, ids, (KNN,))
    plain, looked = ablation(whole, results), ablation(whole, results, [before])
    assert (plain.looks, looked.looks) == (0, 1)
    first, second = (cells(each.tables[0])["0.5"].p for each in (plain, looked))
    assert first
    assert second == pytest.approx(2 * first)
    assert "after 1 earlier plan of the same arms" in " ".join(methods(looked))
    assert "earlier plan" not in " ".join(methods(plain))


def test_families_are_counted_with_the_chance_that_any_errs() -> None:
    one, results = study(NUMBERS)
    told = methods(ablation(sweep(one, metrics=[KNN, LINEAR]), results))[-1]
    # one study, compared with its default and with its best, under two metrics: 1 - 0.95 ** 4 is 18.5 %
    assert told.startswith("Claims are made in 4 families (comparisons with a default and the best, of knn top-1 and")
    assert "is about 5 % at most in each, and about 19 % in all. A primary metric" in told
    told = methods(ablation(replace(sweep(one, metrics=[KNN, LINEAR]), primary=KNN), results))[-1]
    assert "in 2 families" in told
    assert "Knn top-1 was named primary: p and marks of other metrics are no claims." in told
    before = RegisteredPlan("0ld", 0, {"mae: default": {0: "mae-default-0"}}, (KNN,))
    told = methods(ablation(sweep(one), results, [before]))[-1]  # two families, 10 % each after a look: 1 - 0.9 ** 2
    assert "is about 10 % at most in each, and about 19 % in all." in told


def test_every_table_that_names_a_best_is_a_family_and_every_untrained_encoder() -> None:
    """Factors of 3 and 4 arms, each with a best; two methods, of which one is the best, and their untrained encoder."""
    numbers = {f"0.75, {depth}": [70.0, 72.0, 71.0] for depth in (8, 1, 2, 4)} | {"0.5, 8": [1.0], "0.9, 8": [2.0]}
    mae, first = study(numbers)
    simclr, second = study({"0.75, 8": [80.0, 82.0, 81.0]}, method="simclr")
    pixels, third = arm("raw pixels", [75.0, 75.4, 75.2], {}, method="pixels")
    untrained, fourth = arm("random encoder", [50.0, 51.0, 51.5], {}, method="untrained")
    whole = ablation(sweep(mae, simclr, baselines=[pixels, untrained]), [*first, *second, *third, *fourth])
    assert list(families(whole.sweep, whole.tables).values()) == [1, 3, 1]
    assert methods(ablation(sweep(simclr), second))[-1].startswith("Marked are")  # nothing is compared
