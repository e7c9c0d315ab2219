"""What the catalogue claims of objectives is claimed by tests, too."""

import ast
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from selfsup.cli import app
from selfsup.method import load, names
from selfsup.proof import KINDS, NOT_RUN, PAPERS, Claim, common, deviations_in, header, proof
from selfsup.shipped import files

TESTS = Path(__file__).parent
LOSSES = {
    f"selfsup.parts.{name}"
    for name in ("clustering", "contrastive", "distillation", "places", "redundancy", "sketches", "walks")
}
CLAIMS = [(name, claim) for name in names() for kind in KINDS for claim in getattr(proof(name), kind)]
FOLDERS = *PAPERS, "cifar10/", "cifar100/", "imagenette/"
RECIPES = [name for name in files() if name.startswith(FOLDERS) and not name.endswith("/common")]


@cache
def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"proofs.{path.replace('/', '.')}", TESTS / path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def words(value: object) -> Iterator[str]:
    """Yield the words of all strings, and of the sources of functions, in a value, however nested."""
    if isinstance(value, str):
        yield from re.findall(r"\w+", value)
    elif inspect.isfunction(value):
        yield from words(inspect.getsource(value))
    elif isinstance(value, (list, tuple, set, frozenset, dict)):
        for part in value:
            yield from words(part)


def subjects(method: str) -> set[str]:
    """Return the name of a method, and the names of the losses that its module imports."""
    tree = ast.parse(inspect.getsource(sys.modules[load(method).__module__]))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {method, *(alias.name for node in imports if node.module in LOSSES for alias in node.names)}


def mentioned(path: str, test: str) -> set[str]:
    """Return the words of a test: of its file's name, its source and its cases."""
    function = getattr(module(path), test)
    cases = [mark.args[1] for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    return {*Path(path).stem.split("_"), *words(inspect.getsource(function)), *words([list(case) for case in cases])}


@pytest.mark.parametrize(("method", "claim"), CLAIMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_test_backs_each_claim(method: str, claim: Claim) -> None:
    path, _, test = claim.test.partition("::")
    assert test.startswith("test_")
    assert subjects(method) & mentioned(path, test)


def test_a_test_of_something_else_backs_nothing() -> None:
    assert not subjects("mae") & mentioned("methods/test_loops.py", "test_two_processes_go_on_where_one_stopped")
    assert subjects("byol") & mentioned("methods/test_loops.py", "test_ten_steps_are_the_authors")
    with pytest.raises(AttributeError):
        mentioned("methods/test_mae.py", "test_that_is_not_there")


@pytest.mark.parametrize("method", names())
def test_every_objective_is_compared_throughout_and_names_its_deviations(method: str) -> None:
    known = proof(method)
    assert known.loss
    assert known.loop
    assert known.recipe
    assert known.recipes
    assert known.deviations
    assert common()


def test_deviations_are_read_from_the_docstring() -> None:
    assert deviations_in("MAE.\n\nDeviation from the authors' code: a\nb. It is so.\n\nB: batch") == "A b. It is so."
    assert (
        deviations_in("X.\n\nTheir code halves it. Deviations from the authors' code: none is known.")
        == "None is known."
    )
    assert deviations_in("X.\n\nThere is no authors' code: guessed.") == "There is no authors' code: guessed."
    assert deviations_in("X.") == deviations_in(None) == ""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_whether_it_was_run_and_whose_settings_it_has(recipe: str) -> None:
    assert NOT_RUN in header(recipe) or "Run here:" in header(recipe)
    assert "Source: " in header(recipe)


def test_describe_shows_tests_and_deviations(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["describe", "simclr", "--proof"]).output
    assert "tests/methods/test_loops.py::test_ten_steps_are_the_authors\n" in shown
    assert "k400/simclr_cvrl: not run here" in shown
    assert max(map(len, shown.splitlines())) <= 100
    asked = CliRunner().invoke(app, ["describe", "--proof", "--json"]).output
    assert list(json.loads(asked)) == names()
    recipes = ["audioset/mae", "in1k/mae", "in1k/mae_hiera", "k400/mae_st", "k400/mae_videomae"]
    assert json.loads(asked)["mae"]["recipes"] == recipes
    own = tmp_path / "mine.py"
    own.write_text((TESTS.parent / "methods" / "simclr.py").read_text().replace("Deviations from", "Deviating from"))
    shown = CliRunner().invoke(app, ["describe", str(own), "--proof"]).output
    assert shown.count("nothing yet") == 3
    assert "none is named" in shown
