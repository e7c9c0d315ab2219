"""Contracts of evaluators: kept by the shipped ones, and each broken in a way that is told."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfsup import evaluator
from selfsup.cli import app
from selfsup.evaluator_contract import CONTRACTS, check

SPREAD = """import numpy as np
from selfsup import Evaluator, Knobs, Metric


class Spread(Evaluator):
    target = None
    metrics = {"spread": Metric(unit="", better="min"), "right": Metric(headline=False)}

    class Hyper(Knobs):
        pass

    def __init__(self, hyper):
        self.calls = 0

    def run(self, features, *, seed, device="cpu"):
        spread, right = float(features.val.var(axis=0).mean()), features.val.sum(axis=1) > 0
        # here
        yield "spread", spread
        yield "right", right
"""
BROKEN = {  # the line -> the contract that it breaks, and how that is told
    "yield 'other', 1.0": ("it yields its metrics", "it yields other, which is not in metrics"),
    "return": ("it yields its metrics", "it does not yield spread"),
    "spread = float('nan')": ("it yields its metrics", "spread is neither a finite number nor a bool"),
    "right = right[:-1]": ("it yields its metrics", "right is neither"),
    "spread += np.random.rand()": ("equal seeds", "with one seed spread is "),
    "features.train[0] = 0": ("it changes no features", "it changes train"),
    "spread = float(features.val[0].mean())": ("scores follow", "spread depends on the order"),
    "right = np.arange(len(right)) < 9": ("scores follow", "right depends on the order"),
    "spread += float(features.val_label.mean())": ("it needs no labels", "labels change spread"),
    "1 / 0": ("it needs no labels", "ZeroDivisionError: division by zero"),
}


def write(folder: Path, line: str) -> str:
    assert SPREAD.count("# here") == 1
    (folder / "mine.py").write_text(SPREAD.replace("# here", line))
    return str(folder / "mine.py")


@pytest.mark.parametrize("name", evaluator.names())
def test_shipped_ones_keep_all(name: str) -> None:
    unlabelled = evaluator.load(name).target is None
    kept = {title: "" for title, contract in CONTRACTS.items() if unlabelled or not contract.unlabelled}
    assert dict(check(name)) == kept


def test_one_without_labels_keeps_all(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-evaluator", write(tmp_path, "pass")])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == len(CONTRACTS)
    assert all(line.startswith("yes  ") for line in result.output.splitlines())


def test_one_that_takes_long_is_run_with_its_cheap_knobs(tmp_path: Path) -> None:
    text = SPREAD.replace("        pass", "        steps: int = knob(10**9, 'steps')").replace(
        "self.calls = 0", "self.hyper = hyper"
    )
    text = text.replace("Knobs, Metric", "Knobs, Metric, knob").replace(
        "    target = None", "    cheap = {'steps': 1}\n    target = None"
    )
    (tmp_path / "mine.py").write_text(text.replace("# here", "assert self.hyper.steps == 1"))
    assert set(dict(check(str(tmp_path / "mine.py"))).values()) == {""}


def test_one_of_tokens_is_given_them(tmp_path: Path) -> None:
    text = SPREAD.replace("target = None", 'target, reads = None, "tokens"').replace("sum(axis=1)", "sum(axis=(1, 2))")
    (tmp_path / "mine.py").write_text(text.replace("# here", "assert features.val.ndim == 3"))
    assert set(dict(check(str(tmp_path / "mine.py"))).values()) == {""}


@pytest.mark.parametrize(("line", "expected"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_contract_is_told(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    contract, reason = expected
    broken = {title: text for title, text in check(write(tmp_path, line)) if text}
    assert any(title.startswith(contract) and reason in text for title, text in broken.items()), broken


def test_a_broken_contract_ends_with_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-evaluator", write(tmp_path, "1 / 0")])
    assert result.exit_code == 1
    assert "no   it changes no features: ZeroDivisionError: division by zero" in result.output
