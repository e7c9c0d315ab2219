"""The specs that are shipped are right, and say what they claim."""

from pathlib import Path

import pytest
import yaml

from selfsup.method import load, names
from selfsup.published import Published
from selfsup.spec import read

ROOT = Path(__file__).parent.parent / "pipelines"
RECIPES = sorted(path for path in ROOT.glob("*/*.yaml") if path.name != "common.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_is_of_the_method_that_it_is_named_after(path: Path) -> None:
    spec = read(path)
    assert f"{path.stem}_".startswith(f"{spec.method}_")
    assert f"selfsup run {path.parent.name}/{path.stem}\n" in path.read_text().partition("\n\n")[0]
    if path.parent.name in ("in1k", "cifar10", "cifar100", "imagenette"):
        assert spec.train.batch >= load(spec.method).least_batch
        assert spec.published or "no number" in path.read_text()
    if spec.published and spec.published.linear is not None:
        assert spec.published.protocol is not None


def test_a_number_is_comparable_with_one_of_the_same_protocol_only() -> None:
    """Published probes see augmented views, or train along; of ours, features are embedded once."""
    numbers = {path.stem: spec.published.comparable for path in RECIPES if (spec := read(path)).published}
    assert {name: known for name, known in numbers.items() if known} == {
        "dino": {"knn": 74.5},
        "dinov2": {"knn": 81.6},
        "dinov3": {"knn": 82.0},
        "ibot": {"knn": 75.2},
        "simdino": {"knn": 74.9},
        "simdinov2": {"knn": 81.1},
    }
    known = Published(source="mine", linear=70, protocol="frozen", knn=60)
    assert known.comparable == {"knn": 60, "linear": 70}
    assert Published(source="mine", linear=70).comparable == {}


def test_every_objective_has_a_recipe() -> None:
    """One of its paper, and one that minutes suffice for: of captions, sounds, depth, clips, clouds on such data."""
    folders = {"audio": ("audioset_clips", "impacts"), "text": ("yfcc15m", "scenes"), "depth": ("in1k", "scenes")}
    folders |= {"right": ("habitat", "scenes"), "image": ("in1k", "photos"), "video": ("k400", "motions")}
    folders |= {"points": ("scannet", "solids")}
    for name in names():
        fields = (*load(name).beside, *(load(name).modalities or ("image",)))
        wanted = next(folders[field] for field in folders if field in fields)
        assert {f"{folder}/{name}" for folder in wanted} <= {f"{path.parent.name}/{path.stem}" for path in RECIPES}


def test_the_table_of_objectives_has_each_that_photographs_suffice_for() -> None:
    studies = yaml.safe_load((ROOT.parent / "sweeps" / "objectives.yaml").read_text())["studies"]
    recipes = {path.stem for path in (ROOT / "photos").glob("*.yaml")}
    assert sorted(Path(study["extends"]).stem for study in studies) == sorted(recipes.intersection(names()))
