"""Shipped specs are named without a path, from any folder."""

from pathlib import Path

import pytest

from selfsup import recipes
from selfsup.errors import SpecError
from selfsup.layers import Layers, plain
from selfsup.shipped import files, locate
from selfsup.spec import read
from selfsup.sweeps.spec import sweepfile

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(Path(name), overrides)
    return str(caught.value).splitlines()[0]


def test_the_names_are_those_of_the_files() -> None:
    specs = {f"{path.parent.name}/{path.stem}": path for path in ROOT.glob("pipelines/*/*.yaml")}
    assert files() == specs | {path.stem: path for path in ROOT.glob("sweeps/*.yaml")}


@pytest.mark.parametrize("name", ["photos/mae", "photos/mae.yaml"])
def test_a_name_reads_as_its_file_does(name: str) -> None:
    assert read(Path(name), ["seeds=3"]) == read(ROOT / "pipelines" / "photos" / "mae.yaml", ["seeds=3"])
    (demo,) = [sweepfile.read(Path("demo"))]
    assert [study.name for study in demo.designs] == ["mae", "simclr"]
    assert str(demo.path) == "demo"  # so the commands that a report shows can be typed again


def test_a_spec_extends_a_shipped_one_whose_own_files_stay_its_own(here: Path) -> None:
    (here / "in1k").mkdir()
    (here / "in1k" / "common.yaml").write_text("name: not this one\n")
    (here / "own.yaml").write_text("extends: in1k/mae\nseeds: 2\n")
    (here / "in1k" / "deep.yaml").write_text("extends: ../own.yaml\n")
    assert plain(Layers().read(Path("in1k/deep.yaml"), ()))["name"] == "in1k"
    assert read(Path("own.yaml")).hyper == read(Path("in1k/mae.yaml")).hyper


def test_a_path_that_exists_wins_and_a_folder_is_none(here: Path) -> None:
    (here / "demo").mkdir()
    assert locate(Path("demo")).path == ROOT / "sweeps" / "demo.yaml"
    (here / "photos").mkdir()
    (here / "photos" / "mae.yaml").write_text("extends: mae\n")
    assert refused("photos/mae.yaml").startswith("photos/mae.yaml:1:10: extends: cannot read photos/mae: No such file")
    (here / "photos" / "mae.yaml").write_text("extends: photos/mae\nname: mine\n")
    assert read(Path("photos/mae.yaml")).name == "mine"
    assert read(Path("photos/mae")).name == "photos"
    (here / "objectives.yaml").symlink_to("gone.yaml")
    assert refused("objectives.yaml").startswith("objectives.yaml: cannot read objectives.yaml: No such file")


def test_errors_name_the_shipped_spec_and_its_line() -> None:
    line = (ROOT / "pipelines" / "photos" / "mae.yaml").read_text().splitlines()[3]
    column = line.index("decoder_depth") + 1
    assert refused("photos/mae", "method=simclr").startswith(f"photos/mae:4:{column}: hyper.decoder_depth: unknown key")


def test_an_unknown_name_says_which_there_are_the_likeliest_first() -> None:
    assert refused("in1k/mea.yaml") == (
        "in1k/mea.yaml: cannot read in1k/mea.yaml: No such file or directory "
        "(no shipped one is called so; there are in1k/mae, in1k/sela, in1k/nepa and others: selfsup recipes)"
    )


def test_the_table_says_what_the_specs_say() -> None:
    heading, *rows = recipes.recipes()
    assert len(rows) == len([name for name in files() if "/" in name and not name.endswith("/common")])
    for name, method, backbone, data, published in rows:
        spec = read(Path(name))
        assert (method, backbone) == (spec.method, spec.backbone.name)
        assert spec.data.train in (data, str(Path(data).absolute()))
        assert published == (str(spec.published) if spec.published else "")
    dino = dict(zip(heading, next(row for row in rows if row[0] == "in1k/dino"), strict=True))
    assert dino["published"] == (
        "kNN 74.5, linear 77 on the last four blocks' class tokens of augmented views (table 2)"
    )
    assert [row[0] for row in recipes.sweeps()[1:]] == sorted(path.stem for path in ROOT.glob("sweeps/*.yaml"))
