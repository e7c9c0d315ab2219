"""Public data sets, tiny, in the folders that their publishers hand out, packed with their maps."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from selfsup.cli import app
from selfsup.errors import DataError
from selfsup.pipelines.data import annotation, layouts
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.reader import SampleReader

SIDE = 6
DRAW = np.random.default_rng(0)
SEG = np.array([[0, 1, 150], [2, 255, 20], [7, 0, 3]], np.uint8).repeat(2, 0).repeat(2, 1)


def save(path: Path, values: NDArray[np.generic], *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = Image.fromarray(values, "P")
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def photo(path: Path) -> None:
    save(path, DRAW.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))


def ade20k(root: Path) -> None:
    for folder, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        photo(root / "images" / folder / f"{name}.jpg")
        save(root / "annotations" / folder / f"{name}.png", np.where(SEG == 255, 9, SEG).astype(np.uint8))


def voc(root: Path) -> None:
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        photo(root / "JPEGImages" / f"{name}.jpg")
        save(root / "SegmentationClass" / f"{name}.png", SEG, palette=True)
        save(root / "SegmentationObject" / f"{name}.png", SEG, palette=True)
        (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    photo(root / "JPEGImages" / "2007_000999.jpg")  # of no split


def coco(root: Path) -> None:
    segment = np.array([[5, 5, 70000], [5, 0, 300], [9, 300, 300]]).repeat(2, 0).repeat(2, 1)
    colors = np.stack([segment % 256, segment // 256 % 256, segment // 65536], axis=-1).astype(np.uint8)
    for split in ("train", "val"):
        photo(root / f"{split}2017" / "000000000139.jpg")
        save(root / "annotations" / f"panoptic_{split}2017" / "000000000139.png", colors)
        content = {
            "images": [{"id": 139, "file_name": "000000000139.jpg", "height": SIDE, "width": SIDE}],
            "categories": [
                {"id": 1, "name": "person", "isthing": 1},
                {"id": 3, "name": "car", "isthing": 1},
                {"id": 92, "name": "banner", "isthing": 0},
            ],
            "annotations": [
                {
                    "image_id": 139,
                    "file_name": "000000000139.png",
                    "segments_info": [
                        {"id": 5, "category_id": 3, "iscrowd": 0},
                        {"id": 70000, "category_id": 3, "iscrowd": 0},
                        {"id": 300, "category_id": 92, "iscrowd": 0},
                        {"id": 9, "category_id": 1, "iscrowd": 1},
                    ],
                }
            ],
        }
        (root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(content))


def nyu(root: Path) -> None:
    for folder in ("sync/kitchen_0028b", "official_splits/test/kitchen"):
        photo(root / folder / "rgb_00045.jpg")
        save(root / folder / "sync_depth_00045.png", 100 * SEG.astype(np.uint16))


def packed(make: Callable[[Path], None], tmp_path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the maps of the only validation sample, after packing by the command line."""
    make(tmp_path / "data")
    argv = ["shards", "pack", "--as", make.__name__, str(tmp_path / "data"), str(tmp_path / "out")]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    train, val = (load(str(tmp_path / "out" / split)) for split in ("train", "val"))
    assert (train.num_samples, val.num_samples, train.annotations) == (1, 1, val.annotations)
    assert f"with {', '.join(val.annotations)}" in result.output
    one = np.zeros(1, np.int64)
    maps = {name: SampleReader(val, name).read(one)[0] for name in val.annotations}
    assert {sample.key for sample in maps.values()} == {SampleReader(val, "image").read(one)[0].key}
    return {name: annotation.read(name, sample.data, 3, "a") for name, sample in maps.items()}


def test_ade20k_counts_classes_from_0_and_has_none_where_it_had_0(tmp_path: Path) -> None:
    maps = packed(ade20k, tmp_path)
    assert maps.keys() == {"seg"}
    np.testing.assert_array_equal(maps["seg"], [[-1, 0, 149], [1, 8, 19], [6, -1, 2]])


def test_voc_has_classes_and_objects(tmp_path: Path) -> None:
    maps = packed(voc, tmp_path)
    np.testing.assert_array_equal(maps["seg"], [[0, 1, 150], [2, -1, 20], [7, 0, 3]])
    np.testing.assert_array_equal(maps["inst"], [[0, 1, 150], [2, 0, 20], [7, 0, 3]])


def test_coco_has_stuff_and_crowds_among_classes_and_single_things_alone_among_objects(tmp_path: Path) -> None:
    maps = packed(coco, tmp_path)
    np.testing.assert_array_equal(maps["seg"], [[1, 1, 1], [1, -1, 2], [0, 2, 2]])
    np.testing.assert_array_equal(maps["inst"], [[1, 1, 2], [1, 0, 0], [0, 0, 0]])


def test_nyu_has_meters(tmp_path: Path) -> None:
    maps = packed(nyu, tmp_path)
    np.testing.assert_allclose(maps["depth"], SEG[::2, ::2] / 10, rtol=1e-6)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_another_folder_is_told(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no image of {layout}'s train split; expected .*[.]"):
        layouts.read(layout, tmp_path)


def test_a_missing_map_is_told(tmp_path: Path) -> None:
    nyu(tmp_path)
    (tmp_path / "sync" / "kitchen_0028b" / "sync_depth_00045.png").unlink()
    part = layouts.read("nyu", tmp_path)["train"]
    with pytest.raises(DataError, match=r"sync_depth_00045.png: not a PNG"):
        part.sample(part.entries[0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [(["--as", "imagenet"], "expected one of ade20k"), (["--as", "voc", "--flat"], "--shard-size")],
)
def test_what_does_not_fit_is_refused(options: list[str], problem: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["shards", "pack", *options, str(tmp_path), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", " ").split())
