"""Tables of sweeps whose numbers are written down; claims against scipy."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from toy_sweep import DEPTH, KNN, LINEAR, arm, study, sweep

from selfsup.hits import HitRecord
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.paper import console, latex, markdown
from selfsup.sweeps.report.table import Table
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.sweep import joined

# deviations of every arm are -1 and 1, in step: no blocks, and four arms of two seeds have variance 2 on 4 degrees
NUMBERS = {"0.75, 8": [70.0, 72.0], "0.5, 8": [60.0, 62.0], "0.9, 8": [70.5, 72.5], "0.75, 1": [69.0, 71.0]}
T1, T2 = scipy.stats.t(1), scipy.stats.t(2)


def tables(numbers: dict[str, list[float | str]], **more: object) -> tuple[Table, ...]:
    one, results = study(numbers, **more)
    return ablation(sweep(one), results).tables


def cells(table: Table) -> dict[str, Cell]:
    return {line.label: line.cells[KNN] for line in table.lines}


def test_a_table_a_factor_and_the_default_in_each() -> None:
    ratio, depth = tables(NUMBERS)
    assert [line.label for line in ratio.lines] == ["0.5", "0.75", "0.9"]
    assert [line.label for line in depth.lines] == ["1", "8"]
    assert cells(ratio)["0.75"].mean == cells(depth)["8"].mean == 71.0
    assert (ratio.study, ratio.title) == ("mae", "mask ratio")


def test_an_interval_is_the_arms_own() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [60.0, 68.0], "0.9, 8": [70.0, 70.0]})
    own = scipy.stats.ttest_1samp([70.0, 72.0, 71.0], 0).confidence_interval()
    assert cells(ratio)["0.75"].half == pytest.approx((own.high - own.low) / 2)
    assert cells(ratio)["0.5"].half == pytest.approx(T1.ppf(0.975) * 4)  # the deviation is 4 times the root of 2
    assert cells(ratio)["0.75"].text == "71.0 ± 2.5"
    assert cells(ratio)["0.9"].text == "70.00"  # two equal numbers tell no deviation


def test_an_interval_is_not_below_what_flips_of_images_make() -> None:
    """The seeds of one arm disagree on 1 of 4 images, as their accuracies say: 1 / 32; of the other on 3: 3 / 32."""
    right = {"default": [[1, 1, 0, 0], [1, 1, 1, 0]], "mask_ratio=0.5": [[1, 0, 0, 0], [0, 1, 1, 0]]}
    one, bare = study({"0.75, 8": [50.0, 75.0], "0.5, 8": [25.0, 50.0]})
    bits = {f"mae-{name}-{seed}": np.array(row, bool) for name, rows in right.items() for seed, row in enumerate(rows)}
    told = [replace(run, seen={KNN: HitRecord("same", {"top1": bits[run.id]})}) for run in bare]
    [table] = ablation(sweep(one), told).tables
    assert cells(table)["0.75"].half == pytest.approx(T1.ppf(0.975) * 100 * (1 / 64) ** 0.5)
    assert cells(table)["0.5"].half == pytest.approx(T1.ppf(0.975) * 100 * (3 / 64) ** 0.5)
    assert "Of knn top-1 flips of samples make a pooled deviation of 25 (the floor); other" in table.note
    [unknown] = ablation(sweep(one), [*told[:3], replace(told[3], seen=told[1].seen)]).tables  # of another number
    assert "is not known of all arms (knn top-1)" in unknown.note
    assert cells(unknown)["0.5"].half == pytest.approx(T1.ppf(0.975) * 100 * (1 / 64) ** 0.5)


def test_two_seeds_of_equal_accuracy_have_the_interval_of_their_flips() -> None:
    """They disagree on 2 of 4 images: variance 1/2 / (2 * 4) = 1/16 on one degree. Of the same images there is none."""
    one, bare = study({"0.75, 8": [50.0, 50.0], "0.5, 8": [25.0, 25.0]})
    bits = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    seen = [HitRecord("same", {"top1": np.array(row, bool)}) for row in bits]
    told = [replace(run, seen={KNN: held}) for run, held in zip(bare, seen, strict=True)]
    [table] = ablation(sweep(one), told).tables
    assert cells(table)["0.75"].half == pytest.approx(T1.ppf(0.975) * 100 * (1 / 32) ** 0.5)
    assert cells(table)["0.5"].half is None
    assert "every seed gave the same" not in table.verdict[0]


def test_comparisons_are_the_weaker_of_dunnetts_and_welchs() -> None:
    ratio, depth = tables(NUMBERS)
    others = [NUMBERS["0.5, 8"], NUMBERS["0.9, 8"], NUMBERS["0.75, 1"]]
    joint = scipy.stats.dunnett(*others, control=NUMBERS["0.75, 8"], rng=np.random.default_rng(0))
    alone = [scipy.stats.ttest_ind(other, NUMBERS["0.75, 8"], equal_var=False).pvalue for other in others]
    found = [cells(ratio)["0.5"], cells(ratio)["0.9"], cells(depth)["1"]]
    assert [cell.difference for cell in found] == pytest.approx([-10, 0.5, -1])
    expected = [min(1, max(p, 2 * own)) for p, own in zip(joint.pvalue, alone, strict=True)]  # log2 of four arms
    assert [cell.p for cell in found] == pytest.approx(expected, abs=1e-3)
    half = T2.isf(0.05 / 2 / 2) * 2**0.5  # wider than Dunnett's 5.1
    assert [cell.difference_half for cell in found] == pytest.approx([half] * 3)
    assert (cells(ratio)["0.75"].p, cells(ratio)["0.75"].difference) == (None, None)


def test_the_best_is_marked_with_all_that_cannot_be_told_from_it() -> None:
    found = cells(tables(NUMBERS)[0])
    assert {label: (cell.best, cell.tied) for label, cell in found.items()} == {
        "0.5": (False, False),
        "0.75": (False, True),
        "0.9": (True, True),
    }


def test_the_verdict_in_sentences() -> None:
    ratio, depth = tables(NUMBERS)
    assert ratio.verdict == (
        "mask ratio, knn top-1 (n = 2): 0.75 > 0.5 by 10.0 ± 8.8 (adjusted p = 0.039); 0.75 cannot be told from 0.9; "
        "the best is 0.75 or 0.9.",
    )
    assert depth.verdict == ("decoder depth, knn top-1 (n = 2): 8 cannot be told from 1.",)


def test_one_seed_claims_nothing_and_is_marked_in_nothing() -> None:
    [ratio] = tables({"0.75, 8": [70.0], "0.5, 8": [60.0]})
    found = cells(ratio)
    assert found["0.5"].difference == -10.0
    assert (found["0.5"].half, found["0.5"].difference_half, found["0.5"].p) == (None, None, None)
    assert not any(cell.tied or cell.best for cell in found.values())
    assert ratio.verdict == ("mask ratio, knn top-1 (n = 1): too few seeds to tell.",)


def test_two_degrees_of_freedom_have_an_interval_and_no_claim() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 72.0], "0.5, 8": [10.0, 12.0]})
    assert cells(ratio)["0.5"].half == pytest.approx(T1.ppf(0.975))
    assert cells(ratio)["0.5"].p is None


def test_seeds_that_change_nothing_are_no_evidence() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 70.0, 70.0], "0.5, 8": [60.0, 60.0, 60.0]})
    assert (cells(ratio)["0.5"].half, cells(ratio)["0.5"].p) == (None, None)
    assert "every seed gave the same number" in ratio.verdict[0]


def test_failed_arms_stay_with_their_reasons_and_count_in_nothing() -> None:
    [ratio] = tables({"0.75, 8": [70.0, 72.0, 74.0], "0.5, 8": [60.0, "out of memory", 64.0], "0.9, 8": ["nan"] * 3})
    lost, none = ratio.lines[0], ratio.lines[2]
    assert (lost.cells[KNN].n, lost.cells[KNN].planned, lost.cells[KNN].values) == (2, 3, {0: 60.0, 2: 64.0})
    assert lost.failures == ("seed 1: out of memory",)
    assert lost.cost == {"seconds": 61.0}
    assert (none.cells[KNN].text, none.cells[KNN].tied) == ("–", False)
    assert ratio.verdict[-1] == "mask ratio 0.9 has no result (nan)."


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_cut_short_never_counts_whatever_it_measured(status: str) -> None:
    one, results = study(NUMBERS)
    results[0] = replace(results[0], status=status, metrics={KNN: 99.0})
    table = ablation(sweep(one), results).tables[0]
    assert cells(table)["0.75"].values == {1: 72.0}


def test_a_metric_that_is_missing_or_not_a_number_has_no_cell() -> None:
    one, results = study(NUMBERS)
    results[0] = replace(results[0], metrics={KNN: float("nan")})
    table = ablation(sweep(one, metrics=[KNN, LINEAR]), results).tables[0]
    assert cells(table)["0.75"].n == 1
    assert [line.cells[LINEAR].text for line in table.lines] == ["–"] * 3
    assert table.verdict[1] == "mask ratio, linear top-1: no results yet."


def test_a_grid_is_one_table() -> None:
    numbers = {"0.75, 8": [1.0, 2.0], "0.5, 8": [1.0, 3.0], "0.75, 1": [2.0, 3.0], "0.5, 1": [9.0, 9.5]}
    [grid] = tables(numbers, grid=True)
    assert grid.factor is None
    assert grid.title == "mask ratio × decoder depth"
    assert [line.label for line in grid.lines] == ["0.5, 1", "0.5, 8", "0.75, 1", "0.75, 8"]
    # by hand: the means are 9.25, 2, 2.5 and 1.5, so the interaction is 6.25. Seeds are blocks: half of the squares of
    # the seconds' lead over the firsts, 1, 2, 1 and 0.5, about its mean of 1.125 is 0.59375, on 3 degrees of freedom:
    # F = 2 / 4 * 6.25 ** 2 / (0.59375 / 3) = 98.7
    assert grid.verdict[0].startswith(
        "mask ratio × decoder depth, knn top-1 (n = 2): the highest is (0.5, 1) with 9.2 ± "
    )
    assert grid.verdict[0].endswith("; of their interaction nothing is claimed (F(1, 3) = 98.7, p = 0.002).")


def test_of_many_combinations_three_are_named_and_the_rest_counted() -> None:
    means = {"0.5, 1": 69.8, "0.5, 8": 70.2, "0.5, 16": 69.9, "0.75, 1": 70.1, "0.75, 8": 69.7, "0.75, 16": 50.0}
    numbers = {name: [mean - 1, mean + 1, mean] for name, mean in means.items()}
    [grid] = tables({"0.75, 8": numbers.pop("0.75, 8"), **numbers}, grid=True)
    said, _, tested = grid.verdict[0].partition("; of their interaction nothing is claimed ")
    assert said == (
        "mask ratio × decoder depth, knn top-1 (n = 3): the highest is (0.5, 8) with 70.2 ± 2.5; "
        "the default (0.75, 8), (0.5, 1), (0.5, 16) and 1 more cannot be told from it; the other is shown to be below "
        "the best"
    )
    assert tested.startswith("(F(2, 12) = ")


def test_many_claims_are_one_sentence() -> None:
    numbers = {
        "0.75, 8": [70.0, 72.0, 71.0],
        **{f"{ratio}, 8": [ratio * 10, ratio * 10 + 2, ratio * 10 + 1] for ratio in (0.1, 0.2, 0.3, 0.4)},
    }
    [ratio] = tables(numbers)
    assert ratio.verdict == (
        "mask ratio, knn top-1 (n = 3): 0.75 > 0.1, 0.2, 0.3 and 0.4 by 66.0 to 69.0 (adjusted p < 0.001); "
        "0.75 is the best.",
    )


def test_metrics_that_say_the_same_share_a_sentence() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0], "0.5, 8": [70.5, 72.5], "0.9, 8": [70.0, 71.0]})
    results = [replace(run, metrics=dict(run.metrics) | {LINEAR: run.metrics[KNN]}) for run in results]
    [ratio] = ablation(sweep(one, metrics=[KNN, LINEAR]), results).tables
    assert ratio.verdict == ("mask ratio, knn top-1 and linear top-1 (n = 2): 0.75 cannot be told from 0.5 or 0.9.",)


def test_methods_and_baselines_side_by_side() -> None:
    mae, first = study({"0.75, 8": [70.0, 72.0, 71.5], "0.5, 8": [60.0, 62.0, 63.0]})
    simclr, second = study({"0.75, 8": [80.0, 82.0, 81.0]}, method="simclr")
    pixels, third = arm("raw pixels", [75.0, 75.4, 75.2], {}, method="pixels")
    untrained, fourth = arm("random encoder", [50.0, 51.0, 51.5], {}, method="untrained")
    whole = ablation(sweep(mae, simclr, baselines=[pixels, untrained]), [*first, *second, *third, *fourth])
    table = whole.tables[-1]
    found = cells(table)
    assert list(found) == ["raw pixels", "random encoder", "mae", "simclr"]
    assert (found["raw pixels"].n, found["raw pixels"].half) == (1, None)  # the probe's seeds are no replicates
    own = scipy.stats.ttest_1samp([50.0, 51.0, 51.5], 0).confidence_interval()
    assert found["random encoder"].half == pytest.approx((own.high - own.low) / 2)
    assert [cell.tied for cell in found.values()] == [False, False, False, True]
    assert [cell.differs for cell in found.values()] == [False, False, True, True]
    assert found["mae"].difference == pytest.approx(71 + 1 / 6 - 50 - 5 / 6)
    start = "knn top-1: simclr is the best; mean not above raw pixels: mae; mae > random encoder by 20.3 ± "
    assert table.verdict[0].startswith(start)
    assert "simclr > random encoder by 30.2 ± " in table.verdict[0]
    assert len(whole.tables) == 2  # simclr alone has no factor


def test_a_method_of_one_seed_is_not_told_from_an_untrained_encoder_of_one() -> None:
    mae, first = study({"0.75, 8": [90.0]})
    untrained, second = arm("random encoder", [50.0], {}, method="untrained")
    [table] = ablation(sweep(mae, baselines=[untrained]), [*first, *second]).tables
    assert (cells(table)["mae"].difference, cells(table)["mae"].p) == (40.0, None)
    assert table.verdict == ()


def test_methods_are_compared_with_what_they_began_as_seed_by_seed() -> None:
    """Two columns that rise and fall together: the paired t test."""
    before, after = [50.0, 60.0, 55.0, 70.0], [53.0, 62.5, 58.5, 72.0]
    mae, first = study({"0.75, 8": list(after)})
    untrained, second = arm("random encoder", list(before), {}, method="untrained")
    [table] = ablation(sweep(mae, baselines=[untrained]), [*first, *second]).tables
    expected = scipy.stats.ttest_rel(after, before)
    half = (expected.confidence_interval().high - expected.confidence_interval().low) / 2
    cell = cells(table)["mae"]
    assert (cell.difference, cell.difference_half, cell.p) == pytest.approx((2.75, half, expected.pvalue), abs=1e-6)


def test_a_method_is_held_to_the_untrained_encoder_of_its_own_kind() -> None:
    mae, first = study({"0.75, 8": [60.0, 62.0]})
    simclr, second = study({"0.75, 8": [60.0, 62.0]}, method="simclr")
    low, third = arm("random encoder", [50.0, 51.0], {}, method="vit")
    high, fourth = arm("random encoder (resnet18)", [70.0, 71.0], {}, method="resnet18")
    standing = [replace(mae, floor=(low,)), replace(simclr, floor=(high,))]
    whole = replace(sweep(mae, simclr), studies=tuple(standing))
    table = ablation(whole, [*first, *second, *third, *fourth]).tables[-1]
    assert table.verdict == ("knn top-1: mean not above random encoder (resnet18): simclr.",)


def test_expected_numbers_stand_beside() -> None:
    [ratio, _] = tables(NUMBERS, expected={"mask_ratio=0.5": {KNN: 61.5}}, source="the paper")
    assert cells(ratio)["0.5"].expected == 61.5
    assert "Expected numbers: the paper." in ratio.note


def test_integrity_counts_every_run_once() -> None:
    one, results = study(NUMBERS)
    results = [*results[:5], replace(results[5], status="running"), replace(results[6], status="failed", reason="nan")]
    found = ablation(sweep(one), results).integrity
    counts = ("planned", "done", "running", "failed", "stopped", "missing")
    assert [found[name] for name in counts] == [8, 5, 1, 1, 0, 1]
    assert found["deviations"] == (
        "mae: mask_ratio=0.9: seed 1: running",
        "mae: decoder_depth=1: seed 0: failed (nan)",
        "mae: decoder_depth=1: seed 1: not run",
    )
    assert (found["commits"], found["data"]) == (("c0ffee",), {"train": (("s3://bucket/train", "d1"),)})


def test_a_table_of_several_versions_of_the_code_says_so() -> None:
    one, results = study(NUMBERS)
    tags = [{"selfsup.modules": f"train:{mark} optim:cc"} for mark in ("aa", "aa", "bb", "aa", "aa", "aa", "aa")]
    tags[1] |= {"selfsup.accepted": "pretrain"}
    noted = [replace(result, tags=tag) for result, tag in zip(results, tags, strict=False)]
    found = ablation(sweep(one), [*noted, results[7]])
    assert found.integrity["mixed"] == (
        "2 versions of train",
        "1 run made by earlier code and accepted",
        "1 run of unknown code",
    )
    assert "- code: 2 versions of train\n" in paper.markdown(found)
    assert ablation(sweep(one), results).integrity["mixed"] == (), "nothing was noted of any"


def test_seeds_that_are_missing_for_one_reason_share_a_line() -> None:
    one, results = study({"0.75, 8": [1.0, 2.0, 3.0], "0.5, 8": ["nan", "out of memory", "nan"]})
    assert ablation(sweep(one), results).integrity["deviations"] == (
        "mae: mask_ratio=0.5: seeds 0 and 2: failed (nan)",
        "mae: mask_ratio=0.5: seed 1: failed (out of memory)",
    )


def test_arms_are_proved_to_differ_in_their_factor_alone() -> None:
    one, results = study(NUMBERS)
    names = ["mae: mask_ratio=0.5", "mae: mask_ratio=0.9", "mae: decoder_depth=1"]
    assert ablation(sweep(one), results).integrity["differences"] == dict.fromkeys(names, ())


def test_what_else_differs_is_named() -> None:
    one, results = study(NUMBERS)
    results[2] = _told(results[2], **{"optim.lr": "0.1"})
    results[5] = replace(results[5], tags={"selfsup.commit": "bad", "selfsup.data.train": "d1"})
    results[6] = _told(results[6], **{DEPTH: "8"})
    assert list(ablation(sweep(one), results).integrity["differences"].values()) == [
        ("seed 0: optim.lr: 0.1, in the default 0.001",),
        ("seed 1: selfsup.commit: bad, in the default c0ffee",),
        (f"seed 0: {DEPTH}: as in the default, though the arm is named after it",),
    ]


def test_other_hardware_is_named_where_both_are_known() -> None:
    one, results = study(NUMBERS)
    for number, name in ((0, "8 x H100"), (2, "8 x H100"), (4, "8 x A100")):
        results[number] = replace(results[number], tags=dict(results[number].tags) | {"selfsup.hardware": name})
    whole = ablation(sweep(one), results).integrity
    assert list(whole["differences"].values()) == [
        (),
        ("seed 0: selfsup.hardware: 8 x A100, in the default 8 x H100",),
        (),
    ]
    assert whole["hardware"] == ("8 x A100", "8 x H100")


def _told(run: Result, **params: str) -> Result:
    return replace(run, params=dict(run.params) | params)


def test_seeds_needed_follow_the_study_that_deviates_most() -> None:
    one, results = study(NUMBERS)
    other, more = study({"0.75, 8": [70.0, 70.2], "0.5, 8": [60.0, 60.3]}, method="simclr")
    alone = ablation(sweep(one), results).needed[KNN]
    assert ablation(sweep(one, other), [*results, *more]).needed[KNN] == alone
    assert alone.low < alone.n < alone.high


def test_results_come_in_any_order_and_strangers_are_left_out() -> None:
    one, results = study(NUMBERS)
    _, strangers = study({"0.75, 8": [1.0]}, method="byol")
    assert ablation(sweep(one), [*reversed(results), *strangers]) == ablation(sweep(one), results)


def test_a_sweep_that_has_not_begun() -> None:
    one, _ = study(NUMBERS)
    whole = ablation(sweep(one), [])
    line = whole.tables[0].lines[0]
    assert (line.cells[KNN].text, line.cost, line.failures) == ("–", {}, ())
    assert whole.tables[0].verdict == ("mask ratio, knn top-1: no results yet.",)
    assert whole.integrity["missing"] == 8
    assert whole.needed == {}


def test_specs_side_by_side_share_their_baselines() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0]})
    other, more = study({"0.75, 8": [80.0, 82.0]}, method="simclr")
    pixels, floor = arm("raw pixels", [40.0], {"method": "pixels"}, "pixels")
    whole = joined([sweep(one, baselines=[pixels]), sweep(other, baselines=[pixels])])
    [table] = ablation(whole, [*results, *more, *floor]).tables
    assert [(line.label, line.cells[KNN].mean) for line in table.lines] == [
        ("raw pixels", 40.0),
        ("mae", 71.0),
        ("simclr", 81.0),
    ]


def test_a_spec_alone_is_a_table_of_one_line() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0]})
    [table] = ablation(sweep(one), results).tables
    assert [line.label for line in table.lines] == ["mae"]


def test_a_best_mean_that_a_baseline_reaches_says_so_in_table_and_sentence() -> None:
    """The best, 61, is not above pixels of 61.5 and ties with 61; above an untrained encoder of 50 it is."""
    mae, first = study({"0.75, 8": [60.0, 62.0, 61.0], "0.5, 8": [40.0, 42.0, 41.0]})
    pixels, second = arm("raw pixels", [61.0, 61.5, 62.0], {}, method="pixels")
    same, third = arm("same", [61.0, 60.0, 62.0], {}, method="untrained")
    lower, fourth = arm("lower", [50.0, 51.0, 49.0], {}, method="untrained")
    whole = ablation(sweep(mae, baselines=[pixels, same]), [*first, *second, *third])
    ratio, methods = whole.tables
    behind = {line.label: line.cells[KNN].behind for line in ratio.lines}
    assert behind == {"0.5": (), "0.75": ("raw pixels", "same")}
    assert ratio.verdict[0].endswith("; the best mean is not above raw pixels or same.")
    assert methods.lines[-1].cells[KNN].behind == ("raw pixels", "same")
    assert "mean not above raw pixels: mae" in methods.verdict[0]
    assert "the best mean is not above same" in methods.verdict[0]
    assert "| **61.0 ± 2.5 ‡** |" in markdown(whole)
    assert "[0.75]      61.0 ± 2.5‡" in console(whole)
    assert "‡ best mean, but no better than a baseline   Δ to the default" in console(whole)
    assert r"\bfseries 61.0 +- 2.5 {$^\ddagger$}" in latex(whole)
    alone = ablation(sweep(mae, baselines=[lower]), [*first, *fourth])
    assert "not above" not in " ".join(alone.tables[0].verdict)
    assert "‡" not in console(alone)
