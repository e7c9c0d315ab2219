"""The spec that `selfsup init` writes is valid for every objective, and its commands are what to type."""

import shlex
from pathlib import Path

import pytest
from PIL import Image
from small import of_images

from selfsup.errors import SpecError
from selfsup.pipelines.data.folders import find
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.starter import start
from selfsup.sections import Duration
from selfsup.spec import read
from selfsup.sweeps.spec import sweepfile


def fill(folder: Path, *classes: str, each: int = 8) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("method", of_images())
def test_it_is_valid_for_every_objective(method: str, tmp_path: Path) -> None:
    spec = tmp_path / "my specs" / "1e3.yaml"
    spec.parent.mkdir()
    spec.write_text(start(fill(tmp_path / "in", "cat", "dog"), spec, method).text)
    written = read(spec)
    assert (written.name, written.method) == ("1e3", method)
    assert written.data.train == str(tmp_path / "my specs" / "1e3-shards" / "train")
    assert (written.train.batch, written.train.duration) == (16, Duration(epochs=300))
    assert len(written.runs) == 2
    spec.write_text(spec.read_text().replace("# ablate:", "ablate:"))
    assert sweepfile.read(spec).kind == "ablate"


def test_its_commands_make_what_it_names(tmp_path: Path) -> None:
    images, spec = fill(tmp_path / "my images", "cat", "dog"), tmp_path / "a.yaml"
    first = start(images, spec, "mae")
    assert first.what == f"16 images of 2 classes in {images}"
    [pack_, *others] = [shlex.split(command) for command in first.commands]
    assert pack_ == ["selfsup", "shards", "pack", str(images), str(tmp_path / "a-shards"), "--split", "0.1"]
    assert others == [["selfsup", "plan", str(spec)], ["selfsup", "run", str(spec)]]
    assert [shlex.split(command)[1:] for command in first.later] == [
        ["embed", "a/mae:0", str(images), "features.parquet"],
        ["sweep", str(spec)],
    ]


def test_splits_of_the_users_own_are_kept(tmp_path: Path) -> None:
    images = tmp_path / "in"
    fill(images / "train", "cat", "dog")
    fill(images / "val", "cat", "dog", each=2)
    first = start(images, tmp_path / "a.yaml", "mae")
    assert first.commands[:2] == [
        f"selfsup shards pack {images / name} {tmp_path / 'a-shards' / name}" for name in ("train", "val")
    ]
    assert first.what == f"16 images of 2 classes in {images / 'train'}"


def test_images_and_shards_without_labels_are_not_scored(tmp_path: Path) -> None:
    images, spec = fill(tmp_path / "in", "flat"), tmp_path / "a.yaml"
    pack(find(images, flat=True), tmp_path / "shards")
    for folder in (images / "flat", tmp_path / "shards"):
        spec.write_text(start(folder, spec, "mae").text)
        assert not any(dict(read(spec).evals).values())
    assert read(spec).data.train == str(tmp_path / "shards")


def test_a_method_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no recipe of 'nope' to begin with; there are aim, amdim"):
        start(tmp_path, tmp_path / "a.yaml", "nope")
