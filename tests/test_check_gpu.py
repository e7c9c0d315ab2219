"""The check for a GPU, on a CPU in its smallest sizes: it runs, and it notices what is wrong."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from gpu import check, packed, scores, speed, steps, stream, tables, values
from gpu.place import Row, Setup
from gpu.unchecked import exponential_shares
from torch import nn

from selfsup.dirichletmask import DirichletMask

TINY = Setup("cpu", tiny=True)
NEEDED = ("torch", "torchvision", "timm", "numpy")  # timm needs torchvision


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes find nothing but torch, timm, numpy and this tree."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({absent()})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the process of a part


@pytest.mark.usefixtures("bare")
def test_the_command_needs_little_and_leaves_one_json_and_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "check.json"
    assert check.main(["values", "--device", "cpu", "--tiny", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["values"]["rows"]
    assert [(row["objective"], row["backbone"], row["precision"], row["ok"]) for row in rows] == [
        (name, kind, precision, True)
        for name, kind in (("ijepa", "vit"), ("simclr", "vit"), ("simclr", "cnn"))
        for precision in ("fp32", "bf16")
    ]
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_every_objective_is_checked_on_a_bare_machine(tmp_path: Path) -> None:
    """And every evaluation that needs nothing else; four minutes."""
    out = tmp_path / "check.json"
    assert check.main(["values", "scores", "--device", "cpu", "--seconds", "3600", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {(row["objective"], row["backbone"]) for row in result["values"]["rows"]} == set(values.cases(tiny=False))
    assert all("skipped" not in row or "which needs" in row["skipped"] for row in result["scores"]["rows"])


def test_shares_without_scipy_are_those_with_it() -> None:
    rule, noise = DirichletMask(0.25, 3), torch.rand(16, 3)
    torch.testing.assert_close(exponential_shares(rule, noise), rule._shares(noise), rtol=1e-12, atol=0)


def absent() -> list[str]:
    """Return the names of all packages here that none of NEEDED asks for."""
    pending, kept, owners = [*NEEDED], set[str](), packages_distributions()
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name not in kept:
            kept.add(name)
            with suppress(PackageNotFoundError):
                pending += [re.split(r"[^\w.-]", line)[0] for line in requires(name) or () if "extra ==" not in line]
    names = {package: {re.sub(r"[-_.]+", "-", owner).lower() for owner in found} for package, found in owners.items()}
    return [package for package, found in names.items() if not found & {*kept, "selfsup"}]


def test_without_a_gpu_the_command_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main([]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().out


def test_what_a_part_leaves_over_is_for_those_after_it() -> None:
    given: dict[str, float] = {}

    def perform(name: str, seconds: float) -> list[Row]:
        given[name] = seconds
        return []

    check.within(570.0, list(check.PARTS), perform)
    weights = [part.weight for part in check.PARTS.values()]
    expected = [570.0 * weight / sum(weights[number:]) for number, weight in enumerate(weights)]
    assert list(given.values()) == pytest.approx(expected, rel=1e-3)
    assert check.within(0.0, ["run"], perform)["run"]["rows"] == [{"skipped": "the time was up"}]


def test_a_part_is_ended_with_its_time(tmp_path: Path) -> None:
    assert check.apart(TINY, tmp_path, "values", 0.05) == [{"skipped": "the rest: its 0 s were up"}]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda exact: exact._replace(loss=exact.loss * 1.001),
        lambda exact: exact._replace(grads=exact.grads | scaled(exact.grads, 1.01)),
        lambda exact: exact._replace(grads=exact.grads | scaled(exact.grads, float("nan"))),
        lambda exact: exact._replace(loss=exact.loss * float("nan")),
        lambda exact: exact._replace(grads=dict(list(exact.grads.items())[1:])),
    ],
    ids=["loss", "gradient", "nan", "nan of the loss", "no gradient"],
)
def test_a_wrong_value_is_noticed(wrong: Callable[[values.Values], values.Values]) -> None:
    method, batch = small.setting("ijepa")
    exact, single = values.double_values(method, batch), values.values(method, batch)
    host, limits = values.deviation(single, exact), values.LEAST["fp32", "vit"]
    assert values.verdict(host, host, limits, 16.0)["ok"]
    assert not values.verdict(values.deviation(wrong(single), exact), host, limits, 16.0)["ok"]


def scaled(grads: dict[str, torch.Tensor], factor: float) -> dict[str, torch.Tensor]:
    name = "encoders.image.trunk.blocks.0.attn.qkv.weight"
    return {name: grads[name] * factor}


def test_contracts_are_kept() -> None:
    assert [row["ok"] for row in steps.contracts(TINY)] == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_broken_contract_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CONTRACTS", {"always broken": lambda make: make(0) and "it is"})
    assert [row["broken"] for row in steps.contracts(TINY)] == [{"always broken": "it is"}]


def test_scores_of_evaluations_are_compared() -> None:
    assert [(row["evaluation"], row["ok"], row["off"]) for row in scores.rows(TINY)] == [
        ("knn", True, 0),
        ("invariance", True, 0),
    ]
    hits, other, far = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 1]], np.bool_)
    for score, kept in ((hits, True), (other, True), (far, False)):
        assert scores.verdict({"top1": score}, {"top1": hits})["ok"] == kept
    for value, kept in ((50.9, True), (51.1, False), (float("nan"), False)):
        assert scores.verdict({"rmse": 1.0, "ap": value}, {"rmse": 1.0, "ap": 50.0})["ok"] == kept


def test_what_an_evaluation_lacks_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "TINY", ("detection",))
    monkeypatch.setitem(sys.modules, "selfsup.parts.objects", None)
    [row] = scores.rows(TINY)
    assert row["skipped"] == "detection, which needs selfsup.parts.objects"


def test_compiled_steps_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(method: nn.Module) -> None:
        with torch.no_grad():
            for weight in method.parameters():
                weight.mul_(1.1)

    assert steps.compiler() is not None or list(steps.compiled(TINY)) == [{"skipped": "this tree has no train.compile"}]
    for function, kept in ((lambda _: None, True), (change, False)):
        monkeypatch.setattr(steps, "compiler", lambda function=function: function)
        assert [row["ok"] for row in steps.compiled(TINY)] == [kept]


def test_the_table_of_speed_has_a_row_for_each_objective() -> None:
    rows = list(speed.rows(TINY))
    assert [row.get("error") for row in rows] == [None] * 4
    for row in rows:
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["milliseconds"], rel=0.02)
        assert 0.5 < sum(row["where"]["top"].values()) <= 1.001
    text = tables.markdown({"machine": check.machine("cpu"), "speed": {"seconds": 1.0, "rows": rows}})
    assert text.count("\n| dinov2 |") == 1


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(_: object, images: int, *__: object) -> Row:
        if images > 1:
            raise torch.OutOfMemoryError("too many")
        return {"batch": images}

    monkeypatch.setattr(speed, "_measured", measured)
    assert [row["batch"] for row in speed.rows(TINY)] == [1] * 4


def test_time_that_kernels_share_counts_once() -> None:
    assert speed.covered([(0.0, 2.0), (1.0, 3.0), (1.5, 1.6), (5.0, 6.0)]) == 4.0


def test_what_is_not_installed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("simplejpeg", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert list(stream.threads(TINY)) == [{"skipped": "not installed: simplejpeg"}]
    assert list(stream.run(TINY)) == [{"skipped": "not installed: simplejpeg, mlflow"}]


def test_the_stream_is_attached() -> None:
    [row] = stream.threads(TINY)
    assert row["ok"], row
    assert 0 < row["input_wait"] < 1


def test_packed_crops_are_timed() -> None:
    assert [row["ok"] for row in packed.rows(TINY)] == [True]


def test_tables_show_what_failed_and_what_was_skipped() -> None:
    good = {"objective": "mae", "backbone": "vit", "ok": True, "grad_error": 1e-7, "grad_limit": 1e-3}
    rows = [good, good | {"objective": "byol", "grad_error": 1e-4}, {"objective": "aim", "ok": False, "error": "it|is"}]
    text = tables.section("values", {"seconds": 2.0, "rows": [*rows, {"skipped": "the rest"}]})
    assert "### values: 2 of 3, 2 s" in text
    assert "| byol |" in text
    assert "| mae |" not in text
    assert "it/is" in text
    assert text.endswith("- skipped: the rest")
    assert not check.passed({"machine": {}, "values": {"rows": rows}})
    assert check.passed({"machine": {}, "values": {"rows": [good, {"skipped": "the rest"}]}})
