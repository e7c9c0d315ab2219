"""Contracts of objectives: kept by a shipped one, and each broken in a way that is told."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import selfsup.methods.vicreg
from selfsup import process_contract
from selfsup.cli import app
from selfsup.contract import CONTRACTS, check

SIMCLR = Path(selfsup.methods.vicreg.__file__).with_name("simclr.py").read_text()
LOSS = "        loss = nt_xent("
BROKEN = {  # what precedes the loss in forward -> the contract that it breaks, and how that is told
    "self.temperature += 0.01": ("forward is deterministic", "the losses of two calls are "),
    "a = a + 0 * a.new_empty(a.shape).normal_()": ("forward is deterministic", "draws random numbers"),
    "self.projector[0].weight.data.mul_(2)": ("forward changes no weight", "forward changes projector.0.weight"),
    "a = a.detach(); b = b.detach().requires_grad_()": ("a finite gradient", "no gradient reaches encoders."),
    "self.steps = getattr(self, 'steps', 0) + self.training; a = a * self.steps": ("a restored run", "differ"),
}


def write(folder: Path, line: str) -> str:
    assert SIMCLR.count(LOSS) == 1
    (folder / "mine.py").write_text(SIMCLR.replace(LOSS, f"        {line}\n{LOSS}"))
    return str(folder / "mine.py")


def test_a_sound_objective_keeps_all(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-method", write(tmp_path, "pass")])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == 2 * (len(CONTRACTS) + 1)
    assert all(line.startswith("yes  ") for line in result.output.splitlines())


@pytest.mark.parametrize(("line", "expected"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_contract_is_told(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    contract, reason = expected
    broken = {name: text for name, text in check(write(tmp_path, line)) if text}
    assert any(name.startswith(contract) and reason in text for name, text in broken.items()), broken


def test_what_an_objective_raises_is_told_and_ends_with_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-method", write(tmp_path, "1 / 0")])
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero" in result.output


def test_a_step_that_two_processes_make_otherwise_is_told(tmp_path: Path) -> None:
    of_own_rows = "a, b = a - a.mean(dim=0), b - b.mean(dim=0)"
    broken = dict(process_contract.check(write(tmp_path, of_own_rows)))
    assert list(broken) == ["two processes do what one does, on a vit", "two processes do what one does, on a cnn"]
    assert all(text.startswith("these differ: the loss, ") for text in broken.values()), broken


def test_what_a_process_raises_is_told(tmp_path: Path) -> None:
    problems = dict(process_contract.check(write(tmp_path, "__import__('torch').distributed.get_rank() / 0")))
    assert set(problems.values()) == {"in two processes: ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(("second", "problem"), [(1.0, ""), (2.0, "these differ: the loss; ")])
def test_what_differs_on_one_batch_alone_is_rounding(
    monkeypatch: pytest.MonkeyPatch, second: float, problem: str
) -> None:
    joined = {0: 2.0, 1: second}
    monkeypatch.setattr(process_contract, "_run", lambda *_: "")
    monkeypatch.setattr(process_contract, "step", lambda *_: {"the loss": torch.tensor(1.0)})
    monkeypatch.setattr(
        process_contract,
        "_joined",
        lambda folder, kind, seed: {"the loss": torch.tensor(joined[seed])},  # noqa: ARG005
    )
    assert all(text.startswith(problem) and bool(text) == bool(problem) for _, text in process_contract.check("moco"))


@pytest.mark.parametrize("name", ["cubic_puzzles", "random_walk"])
def test_an_objective_of_clips_alone_is_checked_on_clips(name: str) -> None:
    outcomes = dict(check(name))
    assert len(outcomes) == len(CONTRACTS)
    assert set(outcomes.values()) == {""}
