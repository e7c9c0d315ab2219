"""The specs that are shipped are right, and say what they claim."""

from pathlib import Path

import pytest

from selfsup.method import load, names
from selfsup.spec import read

ROOT = Path(__file__).parent.parent / "pipelines"
RECIPES = sorted(path for path in ROOT.glob("*/*.yaml") if path.name != "common.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_is_of_the_method_that_it_is_named_after(path: Path) -> None:
    spec = read(path)
    assert spec.method == path.stem
    assert spec.train.batch >= load(spec.method).least_batch or path.parent.name == "photos"
    assert f"selfsup run pipelines/{path.parent.name}/{path.name}" in path.read_text().partition("\n\n")[0]
    if path.parent.name != "photos":
        assert spec.published


def test_every_objective_has_a_recipe() -> None:
    for folder in ("in1k", "photos"):
        assert {path.stem for path in RECIPES if path.parent.name == folder} == set(names())
