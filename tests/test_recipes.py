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
    assert path.stem.partition("_")[0] == spec.method
    assert f"selfsup run {path.parent.name}/{path.stem}\n" in path.read_text().partition("\n\n")[0]
    if path.parent.name in ("in1k", "cifar10"):
        assert spec.train.batch >= load(spec.method).least_batch
        assert spec.published or "no number" in path.read_text()


def test_every_objective_has_a_recipe() -> None:
    for folder in ("in1k", "photos"):
        assert set(names()) <= {path.stem for path in RECIPES if path.parent.name == folder}
