"""The formats of a report: what each must hold, that it can be read back, and that it never changes by itself."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import scipy.stats
from toy_sweep import KNN, LINEAR, arm, study, sweep

from selfsup.pipelines.data.bundled import MAKERS
from selfsup.sweeps.report import artificial, paper
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.report.tabular import escaped
from selfsup.sweeps.report.wording import (
    heading,
    interval,
    label,
    listed,
    probability,
    shown,
    some,
    tick,
)
from selfsup.sweeps.spec.study import Factor, Study

HEAD = r"""\documentclass{article}
\usepackage{amssymb,booktabs,siunitx}
\usepackage[table]{xcolor}
\begin{document}
"""


@pytest.fixture(scope="module")
def whole() -> Ablation:
    numbers = {
        "0.75, 8": [70.0, 72.0],
        "0.5, 8": [60.0, 62.0],
        "0.9, 8": ["out of memory"] * 2,
        "0.75, 1": [69.0, 71.0],
    }
    mae, first = study(numbers, expected={"mask_ratio=0.5": {KNN: 61.5}}, source="50% of R&D_1")
    simclr, second = study(
        {"0.75, 8": [80.0, 81.0], "0.5, 8": [1.0, 2.0], "0.75, 1": [3.0, 4.5]}, method="simclr", grid=True
    )
    pixels, third = arm("raw pixels", [40.0, 40.0], {}, method="pixels")
    return ablation(sweep(mae, simclr, baselines=[pixels], metrics=[KNN, LINEAR]), [*first, *second, *third])


def test_a_table_of_many_metrics_is_folded_in_a_terminal() -> None:
    metrics = [f"eval/spectrum/rankme{number}" for number in range(9)]
    one, results = study({"0.75, 8": [70.0, 72.0], "0.5, 8": [60.0, 62.0]})
    results = [replace(run, metrics=dict.fromkeys(metrics, run.metrics[KNN])) for run in results]
    lines = paper.console(ablation(sweep(one, metrics=metrics), results)).splitlines()
    heads = [line for line in lines if line.startswith("mask ratio  ")]
    assert len(heads) == 2
    assert re.findall(r"rankme\d", " ".join(heads)) == [f"rankme{number}" for number in range(9)]
    assert all(line.count(" Δ") == line.count("rankme") for line in heads)
    assert max(map(len, lines[: lines.index(heads[-1]) + 3])) <= paper.WIDEST
    assert sum(line.startswith("[0.75]  ") for line in lines) == 2


def test_the_terminal() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0], "0.5, 8": [60.0, 62.0], "0.9, 8": [70.5, "nan"]})
    assert paper.console(ablation(sweep(one), results)).splitlines()[:6] == [
        "mae: mask ratio",
        "mask ratio  knn top-1       Δ       n",
        "0.5          61 ± 13†  -10.00       2",
        "[0.75]       71 ± 13*       –       2",
        "0.9            70.50    -0.50  1 of 2",
        "0.9: seed 1: nan",
    ]


def test_data_that_a_program_made_are_said_to_be() -> None:
    one, results = study({"0.75, 8": [70.0, 72.0], "0.5, 8": [60.0, 62.0]})
    plain = ablation(sweep(one), results)
    places = {"data.train": "bundled://scenes/train", "data.val": "bundled://sounds/val"}
    tags = {"selfsup.data.val": "d2"}
    made = ablation(sweep(one), [replace(run, params=run.params | places, tags=run.tags | tags) for run in results])
    text = "Data are rendered (bundled://scenes) and synthesised (bundled://sounds): what wins here need not win on"
    for form in (paper.console, paper.markdown):
        assert text in form(made)
        assert "Data are" not in form(plain)
    assert {name for names in artificial.KINDS.values() for name in names} == {*MAKERS} - {"photos", "digits"}


def test_crossed_factors_in_the_terminal() -> None:
    one, results = study(
        {"0.75, 8": [70.0, 72.0], "0.5, 8": [60.0, 62.0], "0.75, 4": [70.5], "0.5, 4": ["nan", "nan"]}, grid=True
    )
    assert paper.console(ablation(sweep(one), results)).splitlines()[:5] == [
        "mae: mask ratio × decoder depth",
        "knn top-1 (n = 0 to 2)",
        "mask ratio \\ decoder depth       4           8",
        "0.5                             –     61 ± 13†",
        "0.75                        70.50   [71 ± 13*]",
    ]


def test_three_factors_are_columns_and_switches_are_ticked() -> None:
    paths = ("hyper.a", "hyper.b_c", "hyper.d")
    factors = tuple(
        Factor(path, values, values[0], None, False)
        for path, values in zip(paths, ((False, True), (1, 2), ({"epochs": 100}, {"epochs": 800})), strict=True)
    )
    made = [arm("default", [1.0, 2.0], dict(zip(paths, (False, 1, {"epochs": 100}), strict=True)))]
    made += [arm("other", [3.0, 4.0], dict(zip(paths, (True, 2, {"epochs": 800}), strict=True)))]
    (default, first), (other, second) = made
    default = replace(default, changed={})
    one = Study("mae", "mae", (), factors, (default, other), {}, "")
    text = paper.markdown(ablation(sweep(one), [*first, *second]))
    assert "| a | b c | d | knn top-1 | Δ | n | seconds |\n| :-- | :-- | :-- | --: | --: | --: | --: |" in text
    assert "| ✗ (default) | 1 | 100 epochs | 1.5" in text
    assert "| ✓ | 2 | 800 epochs |" in text
    latex = paper.latex(ablation(sweep(one), [*first, *second]))
    assert "\\rowcolor{gray!20} $\\times$ & 1 & 100 epochs & " in latex


def test_markdown(whole: Ablation) -> None:
    text = paper.markdown(whole)
    assert "| 0.75 (default) | **71 ± 13** | – | – | – |" in text  # t of 1 degree: 12.7; deviation sqrt(2)
    assert "- 0.9: seeds 0 and 1: out of memory" in text
    assert "- mae: mask ratio 0.9 has no result" in text
    assert "14 of 16 runs done; made by `selfsup sweep sweeps/toy.yaml`\n- plan 5eed, not registered yet" in text
    assert "- mae: mask_ratio=0.9: seeds 0 and 1: failed (out of memory)" in text
    assert "**knn top-1 (n = 2)**\n\n| mask ratio \\ decoder depth | 1 | 8 |" in text
    assert "| 0.75 | 3.8 ± 9.5 | **80.5 ± 6.4** (default) |" in text  # 12.7 by half of what each arm's seeds are apart
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({row.count("|") for row in block.splitlines()}) == 1


def test_latex_is_balanced_and_every_row_has_every_column(whole: Ablation) -> None:
    text = paper.latex(whole)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    for tabular in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        layout, *rows = tabular.splitlines()
        columns = len(re.findall(r"[lrS]", re.sub(r"\[.*?\]", "", layout)))
        for row in rows:
            if row.endswith("\\\\"):
                spans = sum(int(span) - 1 for span in re.findall(r"multicolumn\{(\d+)\}", row))
                assert row.replace("\\&", "").count("&") + 1 + spans == columns, row


def test_latex_says_what_a_caption_must(whole: Ablation) -> None:
    text = paper.latex(whole)
    first = text[: text.index("\\end{table*}")]
    assert "\\label{tab:toy-mae}" in first
    assert "mae: mask ratio and decoder depth. Default (gray): mask ratio 0.75 and decoder depth 8." in first
    assert (
        "n = 2 (mask ratio 0.5: 0 to 2; default: 0 to 2; mask ratio 0.9: 0; decoder depth 1: 0 to 2)." in first
    )  # no run has the linear metric
    assert "Paper: 50\\% of R\\&D\\_1." in first
    assert "(a) mask ratio" in first
    assert "\\rowcolor{gray!20} 0.75 & \\bfseries 71 +- 13 &" in first
    assert "S[table-format=2.0(2){$^\\dagger$}]" in first
    assert "mask ratio 0.9: seeds 0 and 1: out of memory" in first


def test_latex_of_differences_and_of_crossed_factors(whole: Ablation) -> None:
    text = paper.latex(whole)
    [differences] = re.findall(r"\\label\{tab:toy-mae-differences\}(.*?)\\end\{table\}", text, flags=re.DOTALL)
    # Welch's: deviations of sqrt(2) in both, 2 degrees of freedom; four planned arms, so p is doubled
    half, p = scipy.stats.t.isf(0.05 / 4, 2) * 2**0.5, 2 * 2 * scipy.stats.t.sf(10 / 2**0.5, 2)
    [told] = re.findall(rf"\\quad 0.5 & -10.0 \+- {half:.1f} & (0.\d+) ", differences)
    assert float(told) == pytest.approx(p, abs=1e-3)
    assert "\\multicolumn{3}{l}{\\textit{decoder depth}}" in differences
    [crossed] = re.findall(r"\\label\{tab:toy-simclr\}(.*?)\\end\{table", text, flags=re.DOTALL)
    assert "& \\multicolumn{2}{c}{decoder depth} \\\\" in crossed
    assert "mask ratio & {1} & {8} \\\\" in crossed
    assert "0.75 & 3.8 +- 9.5 & \\cellcolor{gray!20}\\bfseries 80.5 +- 6.4 \\\\" in crossed
    assert "0.5 & {} & 1.5 +- 6.4 \\\\" in crossed


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_compiles(whole: Ablation, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(HEAD + paper.latex(whole) + "\\end{document}\n")
    argv = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_special_characters() -> None:
    assert escaped(r"50% of R&D_1 {a}^2 ~\x") == (
        r"50\% of R\&D\_1 \{a\}\textasciicircum{}2 \textasciitilde{}\textbackslash{}x"
    )
    assert escaped("4 × 4 ± 1 – <") == r"4 $\times$ 4 $\pm$ 1 -- $<$"
    assert escaped('τ of "a paper"') == r"$\tau$ of ``a paper''"


def test_csv_and_parquet_hold_every_run_and_metric(whole: Ablation) -> None:
    rows = list(csv.DictReader(io.StringIO(paper.csv(whole).decode())))
    held = pyarrow.parquet.read_table(io.BytesIO(paper.parquet(whole))).to_pylist()
    assert len(rows) == len(held) == 2 * (4 + 3 + 1) * 3 - 2  # three metrics a run; a failed one has two, empty
    one_run = ("mae", "mask_ratio=0.5", 1, KNN)
    [one] = [row for row in held if (row["study"], row["arm"], row["seed"], row["metric"]) == one_run]
    assert (one["value"], one["default"]) == (62.0, False)
    assert json.loads(one["changed"]) == {"hyper.mask_ratio": 0.5}
    assert (one["id"], one["run"]) == ("mae-mask_ratio=0.5-1", "run-of-mae-mask_ratio=0.5-1")
    assert (one["code"], one["train"], one["hardware"]) == ("c0ffee", "d1", None)
    assert one["command"] == "selfsup sweep sweeps/toy.yaml --only mae-mask_ratio=0.5-1"
    lost = [row for row in held if row["status"] == "failed"]
    assert {(row["value"], row["reason"]) for row in lost} == {(None, "out of memory")}
    assert [row["value"] for row in rows if row["status"] == "failed"] == [""] * 4


def test_a_run_that_never_started_has_rows() -> None:
    one, _ = study({"0.75, 8": [1.0], "0.5, 8": [2.0]})
    held = paper.frame(ablation(sweep(one), [])).to_pylist()
    assert [(row["status"], row["value"], row["run"]) for row in held] == [("pending", None, None)] * 2


@pytest.mark.parametrize("form", [paper.markdown, paper.latex, paper.console, paper.csv, paper.parquet])
def test_the_same_results_give_the_same_bytes(form: object, whole: Ablation) -> None:
    again = ablation(whole.sweep, list(reversed(whole.results)))
    assert callable(form)
    assert form(again) == form(whole)


def test_wording() -> None:
    assert [heading(name) for name in ("eval/knn/top1", "eval/linear/lr")] == ["knn top-1", "linear lr"]
    assert [shown(value) for value in (0.75, 1e-4, 0.1 + 0.2, 1_000_000, True, None, (0.9, 0.95), {"steps": 10})] == [
        *("0.75", "0.0001", "0.30000000000000004", "1000000", "true", "null", "[0.9, 0.95]", "{steps: 10}")
    ]
    assert [interval(84.931, 0.1234), interval(84.931, 1.26), interval(84.931, 12.6), interval(-0.5, None)] == [
        *("84.93 ± 0.12", "84.9 ± 1.3", "85 ± 13", "-0.50")
    ]
    assert [interval(value, 1.3, sign="+") for value in (-0.04, 0.04, -0.06)] == [
        "+0.0 ± 1.3",
        "+0.0 ± 1.3",
        "-0.1 ± 1.3",
    ]
    # what is claimed, p below 0.05 and a difference beyond its interval, looks so; what is not does not
    assert [probability(p) for p in (0.0496, 0.04999, 0.05, 0.0504)] == [
        *("p = 0.0496", "p = 0.04999", "p = 0.050", "p = 0.050")
    ]
    assert [interval(*pair, sign="+") for pair in ((1.04, 0.96), (1.26, 1.252), (-1.25, 1.26), (2.0, 2.0))] == [
        *("+1.04 ± 0.96", "+1.26 ± 1.25", "-1.2 ± 1.3", "+2.0 ± 2.0")
    ]
    assert interval(1.2649, 1.2551, sign="+") == "+1.265 ± 1.255"  # 1.3 and 1.3, 1.26 and 1.26
    assert [probability(p) for p in (0.0004, 0.0041, 0.234)] == ["p < 0.001", "p = 0.004", "p = 0.23"]
    assert [listed(names) for names in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert [some(names) for names in (["a"], list("abc"), list("abcde"))] == ["a", "a, b and c", "a, b, c and 2 more"]
    assert [label(value) for value in ({"epochs": 800}, {}, 1.0)] == ["800 epochs", "{}", "1"]
    assert [tick(value) for value in (True, False, 1, 0)] == ["✓", "✗", "1", "0"]
