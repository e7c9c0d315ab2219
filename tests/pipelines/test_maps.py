"""Maps beside images: indexed, read by number, squashed as the images are, and given with tokens."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from selfsup import evaluations
from selfsup.errors import DataError, SpecError
from selfsup.feature_choice import FeatureChoice
from selfsup.pipelines.data import annotation, shards
from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, pack_annotated, png
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.dense import check_maps
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.pixels.crops import crops
from selfsup.pipelines.stages.evaluate import features
from selfsup.pipelines.stages.maps import MapSource
from selfsup.pipelines.stages.raw_values import squares
from selfsup.sealed import sealed
from selfsup.spec import read
from selfsup.views import Center, central_boxes

HEIGHT, WIDTH = 24, 40


def seg(number: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(number).integers(0, 5, (HEIGHT, WIDTH)).astype(np.uint8)
    values[0] = 255
    return values


def depth(number: int) -> NDArray[np.float64]:
    return np.random.default_rng(number).uniform(0, 70, (HEIGHT, WIDTH))


def disparity(number: int) -> NDArray[np.uint16]:
    return np.random.default_rng(number).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)


def packed(folder: Path, first: int, number: int) -> Manifest:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    samples = (
        AnnotatedSample(
            f"{n}",
            {
                "jpg": jpeg(image + n, quality=90),
                "seg.png": png(seg(n)),
                "depth.png": png(millimeters(depth(n))),
                "disparity.png": png(disparity(n)),
            },
        )
        for n in range(first, first + number)
    )
    return pack_annotated(samples, folder, shard_size=4)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    root = tmp_path_factory.mktemp("maps")
    return packed(root / "train", 0, 10), packed(root / "val", 10, 3)


def test_maps_that_all_samples_have_are_in_the_manifest(splits: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    train, _ = splits
    assert (train.num_samples, train.num_shards, list(train.fields)) == (10, 3, ["image"])
    assert train.annotations == ("seg", "depth", "disparity")
    again = load(train.home)
    assert (again.annotations, again.digest) == (train.annotations, train.digest)
    assert shards.index(train.home, out=str(tmp_path)).digest == train.digest
    assert shards.check(train.home) == []
    [sample] = SampleReader(again, "seg").read(np.array([7]))
    assert (sample.key, bytes(sample.data)) == ("7", png(seg(7)))
    head = json.loads((Path(train.home) / "manifest.json").read_text())
    assert head["annotations"] == ["seg", "depth", "disparity"]


def test_a_map_that_some_lack_is_told_and_no_annotation(tmp_path: Path) -> None:
    image = jpeg(np.zeros((8, 8, 3), np.uint8), quality=90)
    pack_annotated(
        [AnnotatedSample("a", {"jpg": image, "seg.png": b""}), AnnotatedSample("b", {"jpg": image})], tmp_path
    )
    remarks: list[str] = []
    data = shards.index(str(tmp_path), remark=remarks.append)
    assert (data.annotations, data.lacking) == ((), {"seg": 1})
    assert any("1 of 2 samples have seg; `stream.lacking` says what becomes of others" in text for text in remarks)


def test_maps_are_those_of_their_samples_in_any_order(splits: tuple[Manifest, Manifest]) -> None:
    ids, room = np.array([2, 5, 9, 10, 12]), np.zeros((5, 12, 12), np.int32)
    assert MapSource("seg", splits, 12).read(ids, room) == 5
    rows, columns = (np.arange(12) + 0.5) * HEIGHT / 12, (np.arange(12) + 0.5) * WIDTH / 12
    for number, own in zip(ids, room, strict=True):
        stored = seg(number).astype(int)[np.ix_(rows.astype(int), columns.astype(int))]
        np.testing.assert_array_equal(own, np.where(stored == 255, -1, stored))
    meters = np.zeros((1, HEIGHT, HEIGHT), np.float32)
    MapSource("depth", splits, HEIGHT).read(np.array([11]), meters)
    known = depth(11)[:, columns_of(HEIGHT)]
    np.testing.assert_allclose(meters[0], np.where(known < 65.5355, known, 0), atol=5.1e-4)
    shifts = np.zeros((1, HEIGHT, HEIGHT), np.float32)
    MapSource("disparity", splits, HEIGHT).read(np.array([11]), shifts)
    squashed = disparity(11)[:, columns_of(HEIGHT)] / 256 * HEIGHT / WIDTH  # in pixels of the map that is read
    np.testing.assert_allclose(shifts[0], squashed, rtol=1e-6)


def test_objects_are_their_classes_and_then_their_numbers(tmp_path: Path) -> None:
    image = jpeg(np.zeros((8, 8, 3), np.uint8), quality=90)
    parts = [
        pack_annotated(
            [AnnotatedSample(name, {"jpg": image, "seg.png": png(seg(2)), "inst.png": png(seg(3) % 5)})],
            tmp_path / name,
        )
        for name in ("train", "val")
    ]
    maps = MapSource("objects", (parts[0], parts[1]), HEIGHT)
    assert maps.shape(9) == (2, HEIGHT, HEIGHT)
    room = np.zeros((2, 2, HEIGHT, HEIGHT), np.int32)
    assert maps.read(np.arange(2), room) == 5
    stored = seg(2).astype(int)[:, columns_of(HEIGHT)]
    np.testing.assert_array_equal(room[:, 0], [np.where(stored == 255, -1, stored)] * 2)
    np.testing.assert_array_equal(room[:, 1], [(seg(3) % 5)[:, columns_of(HEIGHT)]] * 2)


def test_all_maps_that_are_missing_are_told(splits: tuple[Manifest, Manifest]) -> None:
    run, *_ = read("scenes/mae", ["evals.detection={}"]).runs
    objects = evaluations.listed(run.evals)["detection"]
    with pytest.raises(SpecError, match=r"detection needs \.inst\.png beside each image, and data\.train .* has none"):
        check_maps(run, objects, {"train": splits[0]}, {"train": "data.train"})


def columns_of(side: int) -> NDArray[np.int64]:
    return ((np.arange(side) + 0.5) * WIDTH / side).astype(int)


@pytest.mark.parametrize(
    ("tokens", "size", "side"), [(36, 48, 48), (49, 224, 224), (49, 48, 42), (1024, 48, 32), (1, 7, 7)]
)
def test_tokens_share_a_map_alike(tokens: int, size: int, side: int, splits: tuple[Manifest, Manifest]) -> None:
    assert MapSource("seg", splits, size).shape(tokens) == (side, side)


def test_features_come_with_the_maps_of_their_samples(splits: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    """Samples 3 and 11 could not be decoded; rows lie in any order."""
    ids = np.array([12, 0, 5, 10, 1, 2, 4, 6, 7, 8, 9])
    value = ids[:, None, None] + np.zeros((1, 9, 2), np.float32)
    columns = {"label": np.full(11, -1), "split": (ids >= 10).astype(int), "id": ids, "tokens": np.full(11, 9)}
    cells = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), 18)
    with sealed(tmp_path / "features") as part:
        pq.write_table(
            pa.table({name: pa.array(cell) for name, cell in columns.items()} | {"feature": cells}), part / "a"
        )
    data = features(tmp_path, 0, labelled=False, maps=MapSource("seg", splits, 12))
    assert data.train.shape == (9, 9, 2)
    assert data.classes == 5
    assert data.train_map is not None
    assert data.val_map is not None
    assert (data.train_map.shape, data.val_map.shape) == ((9, 12, 12), (2, 12, 12))
    for tokens, own in [*zip(data.train, data.train_map, strict=True), *zip(data.val, data.val_map, strict=True)]:
        stored = annotation.read("seg", png(seg(int(tokens[0, 0]))), 12, "a")
        np.testing.assert_array_equal(own, stored)


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"GIF89a", "a.seg.png: not a PNG"), (png(np.zeros((4, 4, 3), np.uint8)), "expected one number")],
)
def test_what_is_no_map_is_told(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        annotation.read("seg", data, 4, "a")


def test_16_bits_have_their_own_largest_value() -> None:
    values = np.array([[255, 65535], [300, 0]], np.uint16)
    np.testing.assert_array_equal(annotation.read("seg", png(values), 2, "a"), [[255, -1], [300, 0]])


def test_the_squashed_view_is_of_the_whole_image() -> None:
    box = central_boxes(Center(size=16, share=0.5, squashed=True), np.array([HEIGHT]), np.array([WIDTH]))
    np.testing.assert_array_equal(box, [[0, 0, HEIGHT, WIDTH]])
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, WIDTH // 2 :] = 255
    [crop] = crops(png(image), box, [16], ["bicubic"])
    assert crop.shape == (16, 16, 3)
    assert crop[:, :7].max() < 20 < 235 < crop[:, 9:].min()
    assert Center(size=16).geometry != Center(size=16, squashed=True).geometry


def test_squares_of_raw_images_are_places_row_by_row() -> None:
    import torch

    image = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).reshape(2, 4, 6, 3)
    value = squares(image, 2)
    assert value.shape == (2, 6, 12)
    expected = image[1, 2:4, 2:4].movedim(-1, 0).reshape(-1) / 255
    torch.testing.assert_close(value[1, 4], expected)


def test_only_a_dense_choice_has_another_identity() -> None:
    assert FeatureChoice("tokens").identity == {"reads": "tokens"}
    assert FeatureChoice("tokens", squashed=True).identity == {"reads": "tokens", "squashed": True}
