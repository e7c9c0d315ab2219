"""The shapes of `--json`, as the help of each command says them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selfsup import evaluator
from selfsup.cli import app
from selfsup.knob import knob_lines
from selfsup.method import names
from selfsup.shipped import files
from selfsup.spec import run_type


def data(*argv: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*argv, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_of_shipped_specs() -> None:
    listed = data("recipes")
    assert listed.keys() == {"recipes", "sweeps"}
    (mae,) = [recipe for recipe in listed["recipes"] if recipe["recipe"] == "in1k/mae"]
    assert mae.keys() == {"recipe", "method", "backbone", "data", "published"}
    assert (mae["method"], mae["backbone"]) == ("mae", "vit_base_patch16_224")
    assert [sweep["sweep"] for sweep in listed["sweeps"]] == [name for name in files() if "/" not in name]


def test_of_methods_and_backbones() -> None:
    methods = {method.pop("method"): method for method in data("describe")}
    assert list(methods) == names()
    assert methods["simclr"].keys() == {"family", "backbones", "paper", "summary"}
    assert methods["simclr"]["backbones"] == ["vit", "cnn"]
    (beit,) = [family for family in data("describe", "--backbones") if family["family"] == "beit"]
    assert (beit["encoder"], beit["masked"]) == ("tokens", "yes")
    assert data("describe", "mae", "--proof").keys() == {"mae"}


def test_of_knobs() -> None:
    knobs = {knob["path"]: knob for knob in data("describe", "simclr")}
    assert list(knobs) == [line.path for line in knob_lines(run_type("simclr"))]
    temperature = knobs["hyper.temperature"]
    assert (temperature["default"], temperature["symbol"], temperature["required"]) == (0.1, "τ", False)
    assert temperature["sweep"] == {"low": 0.05, "high": 1.0, "log": True}
    assert (knobs["data.train"]["default"], knobs["data.train"]["required"]) == (None, True)
    assert knobs["hyper.dim"]["sweep"] == {"values": [64, 128, 256]}


def test_of_evaluators() -> None:
    evaluators = {line.pop("evaluator"): line for line in data("describe", "--evals")}
    assert list(evaluators) == evaluator.names()
    assert evaluators["linear"].keys() == {"paper", "reads", "metrics", "summary", "knobs"}
    assert evaluators["knn"]["knobs"] == {
        "feature": "pooled",
        "blocks": 1,
        "tower": None,
        "k": 20,
        "temperature": 0.07,
        "ks": [],
        "temperatures": [],
    }
    assert (evaluators["knn"]["paper"], evaluators["knn"]["reads"]) == ("arXiv:1805.01978", "pooled")
    assert evaluators["linear"]["metrics"]["lr"] == {"unit": "", "better": None, "headline": False}
    assert all(line["paper"].startswith("arXiv:") for line in evaluators.values())


def test_of_an_evaluators_knobs() -> None:
    knobs = {knob["path"]: knob for knob in data("describe", "--evals", "knn")}
    own = (
        "feature",
        "blocks",
        "tower",
        "k",
        "temperature",
        "ks",
        "temperatures",
        "use",
        "data.train",
        "data.val",
        "data.classes",
        "data.only_its_classes",
        "data.answers",
    )
    assert list(knobs) == [f"evals.knn.{name}" for name in own]
    of_method = {knob["path"]: knob for knob in data("describe", "simclr")}
    assert all(of_method[path] == knob for path, knob in knobs.items())
    assert knobs["evals.knn.temperature"]["sweep"] == {"low": 0.01, "high": 1.0, "log": True}


def test_of_contracts() -> None:
    contracts = data("check-evaluator", "knn")
    assert contracts
    assert all(contract.keys() == {"contract", "broken"} for contract in contracts)
    assert not any(contract["broken"] for contract in contracts)


def test_of_damaged_shards(make: Any, tmp_path: Path) -> None:
    url = make(tmp_path, number=4).root
    assert data("shards", "check", url) == {"url": url, "problems": []}
    (tar,) = Path(url).glob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-512])
    ((problem),) = data("shards", "check", url, code=3)["problems"]
    assert tar.name in problem


@pytest.mark.parametrize("command", ["describe --backbones --proof", "describe knn --evals --proof"])
def test_what_excludes_each_other_is_refused(command: str) -> None:
    assert CliRunner().invoke(app, command.split()).exit_code == 2
