import json
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import bundled, photographs, shards
from selfsup.pipelines.data.head import VERSION
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.scenes.draw import COLORS, shot
from selfsup.pipelines.data.scenes.render import render
from selfsup.pipelines.modalities.pixels.decode import decode
from selfsup.pipelines.modalities.pixels.frames import every


def no_network(*_: object) -> None:
    raise AssertionError("a bundled data set must not be downloaded")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_network)
        for name in ("photos", "digits"):
            bundled.build(name, made)
    return made


def columns(told: Manifest) -> tuple[list[np.ndarray], np.ndarray]:
    samples = SampleReader(told, "image").read(np.arange(told.num_samples))
    return [decode(s.data, min_height=1, min_width=999) for s in samples], np.array([s.label for s in samples])


@pytest.mark.parametrize(
    ("name", "split", "num", "classes", "side"),
    [
        ("photos", "train", 4000, 16, 64),
        ("photos", "val", 960, 16, 64),
        ("digits", "train", 1437, 10, 32),
        ("digits", "val", 360, 10, 32),
    ],
)
def test_sizes(home: Path, name: str, split: str, num: int, classes: int, side: int) -> None:
    told = load(bundled.resolve(f"bundled://{name}/{split}", home))
    images, labels = columns(told)
    assert {image.shape for image in images} == {(side, side, 3)}
    assert (len(images), len(told.classes)) == (num, classes)
    counts = np.bincount(labels)
    assert counts.min() > 0
    if name == "photos":
        assert set(counts) == {num // classes}
    assert shards.check(told.home) == []


def test_no_pixel_of_a_photograph_is_in_both_splits() -> None:
    width, height = 103, 58  # the number of each pixel is its color
    numbers = np.arange(width * height, dtype=np.uint32).reshape(height, width)
    photo = Image.fromarray(np.stack([numbers >> 8, numbers & 255, numbers * 0], axis=-1).astype(np.uint8))
    found = {}
    for split in ("train", "val"):
        pixels = np.concatenate([np.asarray(tile).reshape(-1, 3) for tile in photographs.tiles(photo, split)]).astype(
            int
        )
        found[split] = (pixels[:, 0] * 256 + pixels[:, 1]).tolist()
    assert sorted(found["train"] + found["val"]) == list(range(width * height))
    assert 0.18 < len(found["val"]) / (width * height) < 0.22


def test_no_crop_looks_over_the_edge_of_its_tile() -> None:
    white = bundled._crop(Image.new("RGB", (60, 70), (255, 255, 255)), np.random.default_rng(0))
    assert white.min() == 255


def test_photographs_are_told_by_their_content(home: Path) -> None:
    """Mean color and contrast alone name most crops: labels are right, and like is tested with like."""
    feature, label = {}, {}
    for split in ("train", "val"):
        images, label[split] = (column[::4] for column in columns(load(str(bundled.build("photos", home) / split))))
        edges = [np.abs(np.diff(image.astype(float), axis=1)).mean() for image in images]
        feature[split] = np.c_[np.mean(images, axis=(1, 2)), np.std(images, axis=(1, 2)), edges]
    distance = np.linalg.norm(feature["val"][:, None] - feature["train"][None], axis=-1)
    assert (label["train"][distance.argmin(1)] == label["val"]).mean() > 0.6  # of 16 classes


def test_digits_are_sklearns_each_once(home: Path) -> None:
    digits = sklearn.datasets.load_digits()
    images, labels = [], []
    for split in ("train", "val"):
        found, label = columns(load(str(bundled.build("digits", home) / split)))
        images += [image.reshape(8, 4, 8, 4, 3).mean((1, 3, 4)) * (16 / 255) for image in found]
        labels += label.tolist()
    flat, known = np.reshape(images, (1797, 64)), digits.data
    squares = (flat**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * flat @ known.T
    nearest = squares.argmin(1)
    assert len(set(nearest)) >= 1795  # two are all but alike
    assert (digits.target[nearest] == labels).all()
    assert np.bincount(labels).tolist() == np.bincount(digits.target).tolist()


def test_scenes_are_packed_with_all_that_belongs_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled.scenes, "NUMBER", {"train": 6, "val": 3})
    data = load(bundled.resolve("bundled://scenes/train", tmp_path))
    assert (data.num_samples, data.num_labelled, data.classes) == (6, 6, tuple(sorted(COLORS)))
    assert data.members == (
        "cls",
        "depth.png",
        "disparity.png",
        "inst.png",
        "jpg",
        "json",
        "right.depth.png",
        "right.jpg",
        "seg.png",
    )
    images, labels = columns(data)
    assert {image.shape for image in images} == {(96, 96, 3)}
    assert [bundled.scenes.sample("train", number).label for number in range(6)] == labels.tolist()
    assert shards.check(data.home) == []


def rest_of(members: Mapping[str, bytes]) -> dict[str, Any]:
    return {**members, "json": json.loads(members["json"]) | {"caption": ""}}


def test_miscaptioned_scenes_have_captions_of_others_and_all_else_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled.scenes, "NUMBER", {"val": 5})
    own, other = ([*bundled.scenes.samples("val", miscaptioned=wrong)] for wrong in (False, True))
    words = [[json.loads(sample.members["json"]).pop("caption") for sample in split] for split in (own, other)]
    assert words[1] == [*words[0][2:], *words[0][:2]] != words[0]
    for one, two in zip(own, other, strict=True):
        assert (one.key, one.label) == (two.key, two.label)
        assert rest_of(one.members) == rest_of(two.members)


def test_tags_of_a_scene_are_the_colors_and_shapes_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled.scenes, "NUMBER", {"val": 3})
    for plain, tagged in zip(bundled.scenes.samples("val"), bundled.scenes.samples("val", tagged=True), strict=True):
        objects = json.loads(plain.members["json"])["objects"]
        names = {bundled.scenes.TAGS[number] for number in json.loads(tagged.members["tags.json"])}
        assert names == {item["color"] for item in objects} | {item["category"] for item in objects}
        assert {**plain.members, "tags.json": tagged.members["tags.json"]} == tagged.members


def test_other_urls_are_left_alone(tmp_path: Path) -> None:
    for url in ("s3://bucket/set", "/data/set", "relative/set"):
        assert bundled.resolve(url, tmp_path) == url
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["bundled://photo/train", "bundled://photos/test", "bundled://photos"])
def test_an_unknown_set_names_the_known_ones(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bundled://photos/train, bundled://photos/val, bundled://digits/train"):
        bundled.resolve(url, tmp_path)


def test_it_is_built_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "MAKERS", {"photos": no_network})
    assert bundled.build("photos", home) == home / "data" / f"photos-{VERSION}"


def test_another_process_may_be_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Any] = []

    def images(_: str) -> Iterator[tuple[str, np.ndarray]]:
        if not others:  # while this one is at work, another starts and ends
            others.append(tmp_path)
            others.append(bundled.build("gray", tmp_path))
            others.append((others[1] / "train" / "000000.tar").stat().st_ino)
        yield "gray", np.full((8, 8, 3), 77, np.uint8)

    monkeypatch.setattr(bundled, "MAKERS", {"gray": partial(bundled._images, images)})
    folder = bundled.build("gray", tmp_path)
    assert others == [tmp_path, folder, (folder / "train" / "000000.tar").stat().st_ino]  # the first one's stays
    assert [path.name for path in (tmp_path / "data").iterdir()] == [folder.name]


def test_motions_visit_the_same_places_in_an_order_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of one scene by each motion; others are of the same frames; bytes do not depend on the moment."""
    pytest.importorskip("av", reason="pip install 'selfsup[video]'")
    monkeypatch.setattr(bundled.motions, "NUMBER", {"train": 4, "val": 1})
    frames = bundled.motions._frames
    monkeypatch.setattr(bundled.motions, "_frames", lambda split, _: frames(split, 0))
    names = "motions", "shuffled", "still"
    data = {name: load(bundled.resolve(f"bundled://{name}/train", tmp_path)) for name in names}
    assert data["motions"].classes == ("left", "right", "left and back", "right and back")
    shown = {}
    for name, own in data.items():
        samples = SampleReader(own, "video").read(np.arange(4))
        assert [sample.label for sample in samples] == [0, 1, 2, 3]
        shown[name] = [list(every(sample.data)) for sample in samples]
    left, right, *back = shown["motions"]
    assert right[0].shape == (48, 48, 3)
    assert [len(clip) for clip in shown["motions"]] == [8] * 4
    np.testing.assert_array_equal(left, right[::-1])
    for clip, order in zip(back, ([7, 5, 3, 1, 0, 2, 4, 6], [0, 2, 4, 6, 7, 5, 3, 1]), strict=True):
        np.testing.assert_array_equal(clip, [right[place] for place in order])
    places = {frame.tobytes() for frame in right}
    assert len(places) == 8
    for clip, own in zip(shown["shuffled"], shown["motions"], strict=True):
        assert {frame.tobytes() for frame in clip} == places
        assert not np.array_equal(clip, own)
    stills = [{frame.tobytes() for frame in clip} for clip in shown["still"]]
    assert [len(clip) for clip in shown["still"]] == [8] * 4
    assert [len(still & places) for still in stills] == [len(still) for still in stills] == [1] * 4
    assert len(set.union(*stills)) > 1
    again = [sample.members["mkv"] for sample in bundled.motions.samples("train")]
    assert again == [bytes(sample.data) for sample in SampleReader(data["motions"], "video").read(np.arange(4))]


def test_a_scene_of_clips_looks_alike_six_meters_farther() -> None:
    """At both ends of what the camera's places are drawn from, to a rounding of textures."""
    one = shot("train", 1)
    scene, (_, y, z) = bundled.motions._repeated(one.scene), one.left.position
    left, right = (render(scene, one.left._replace(size=48, focal=52.5, position=(x, y, z))) for x in (-3.0, 3.0))
    assert np.abs(left.astype(int) - right).mean() < 0.5
    assert left.std() > 10
