"""Differences over seeds and over images stand side by side, each with what it covers."""

from dataclasses import replace

import numpy as np
from toy_sweep import KNN, study, sweep

from selfsup.hits import HitRecord
from selfsup.sweeps.report import bootstrap, paper, uncertainty
from selfsup.sweeps.report.page import page
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation


def told(*, same: bool = True) -> tuple[Ablation, dict[str, np.ndarray]]:
    """Three seeds of two arms, of which each had these of 200 images right. same: both saw the same ones."""
    draw = np.random.default_rng(0)
    hits = {name: draw.random((3, 200)) < share for name, share in {"0.75, 8": 0.7, "0.5, 8": 0.55}.items()}
    made, results = study({name: list(100 * rows.mean(1)) for name, rows in hits.items()})
    rows = [(name, row) for name, matrix in hits.items() for row in matrix]
    seen = [{KNN: HitRecord("val" if same else name, {"top1": row})} for name, row in rows]
    return ablation(sweep(made), [replace(run, seen=own) for run, own in zip(results, seen, strict=True)]), hits


def test_each_interval_is_in_a_column_that_says_what_it_is_over() -> None:
    report, hits = told()
    cell = report.tables[0].lines[0].cells[KNN]
    low, high = bootstrap.difference(hits["0.5, 8"], hits["0.75, 8"])
    assert cell.over_images == (low, high)
    assert cell.difference is not None
    assert cell.difference_half is not None
    [block] = uncertainty.blocks(report.tables)
    texts = {column.name: column.texts for column in block.columns}
    assert [*texts] == ["mask ratio", "metric", "Δ", "over seeds", "over images"]
    assert texts["over images"] == [f"{low:+.1f} to {high:+.1f}"]
    ends = cell.difference - cell.difference_half, cell.difference + cell.difference_half
    assert texts["over seeds"] == [" to ".join(f"{end:+.1f}" for end in ends)]
    assert f"{ends[0]:+.1f}" != f"{low:+.1f}"


def test_page_and_markdown_say_which_is_which_and_that_neither_covers_the_other() -> None:
    report, _ = told()
    for text in (page(report, [], {}), paper.markdown(report)):
        assert "over seeds, and over images" in text
        assert text.count("Neither covers the other.") == 1


def test_of_arms_that_saw_other_images_there_is_none() -> None:
    report, _ = told(same=False)
    assert uncertainty.blocks(report.tables) == []
    assert "over images" not in paper.markdown(report)
    assert "over images" not in page(report, [], {})
