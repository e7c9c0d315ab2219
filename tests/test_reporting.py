"""Tables with numbers derived by hand."""

from selfsup.reporting import Row, cell, heading, table


def row(label: str, seed: int, **metrics: float) -> Row:
    values = {f"eval/{name}/top1": value for name, value in metrics.items()}
    return Row(f"{label}{seed}", label, str(seed), "FINISHED", values)


def test_cell_is_the_mean_and_the_sample_deviation() -> None:
    found = cell([70.0, 72.0, 77.0])  # mean 73; deviations -3 -1 4; (9 + 1 + 16) / 2 = 13
    assert found is not None
    assert (found.n, found.mean) == (3, 73.0)
    assert found.sd is not None
    assert abs(found.sd - 13**0.5) < 1e-12


def test_one_seed_has_no_deviation_and_none_no_cell() -> None:
    assert cell([50.0]) == (1, 50.0, None)
    assert cell([]) is None


def test_the_table_as_printed() -> None:
    rows = [
        row("pixels", 0, knn=40.0, linear=50.0),
        row("mae", 0, knn=70.0, linear=81.0),
        row("mae", 1, knn=72.0, linear=83.0),  # knn 71, sd sqrt(2) = 1.41; linear 82
        row("simclr", 0, knn=100.0),
        row("simclr", 1),
    ]
    assert table(rows, ["eval/knn/top1", "eval/linear/top1"]).splitlines() == [
        "        n  knn top-1         linear top-1",
        "pixels  1   40.00            50.00",
        "mae     2   71.00 ± 1.41     82.00 ± 1.41*",
        "simclr  2  100.00* (1 of 2)      – (0 of 2)",
    ]


def test_equal_bests_are_both_marked() -> None:
    found = table([row("a", 0, knn=1.0), row("b", 0, knn=1.0), row("c", 0, knn=0.5)], ["eval/knn/top1"])
    assert [line.count("*") for line in found.splitlines()] == [0, 1, 1, 0]


def test_a_metric_that_nobody_has_marks_nobody() -> None:
    assert "*" not in table([row("a", 0), row("b", 0)], ["eval/knn/top1"])


def test_no_runs_leave_the_headings() -> None:
    assert table([], ["eval/knn/top1"]) == "  n  knn top-1"


def test_headings() -> None:
    assert heading("eval/knn/top1") == "knn top-1"
    assert heading("eval/linear/lr") == "linear lr"
    assert heading("pretrain/loss") == "pretrain loss"
