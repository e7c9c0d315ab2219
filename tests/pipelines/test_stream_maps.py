"""Maps in a training stream: they show what the first view shows, whoever prepares them."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as TF

from selfsup.batch import blank_batch
from selfsup.errors import DataError
from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, pack_annotated, png
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.train import split
from selfsup.views import Crop, MapSpec, Views

HEIGHT, WIDTH, SIDE, NUMBER, BAD = 24, 40, 16, 20, 5
MAPS = MapSpec("seg", 9), MapSpec("inst"), MapSpec("depth")


def seg(number: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(number).integers(0, 9, (HEIGHT, WIDTH)).astype(np.uint8)
    values[0] = 255
    return values


def inst(number: int) -> NDArray[np.uint16]:
    """Half as fine as the image: each pixel has a number of its own."""
    return (np.arange(HEIGHT // 2 * WIDTH // 2).reshape(HEIGHT // 2, -1) + 1000 * number).astype(np.uint16)


def depth(number: int) -> NDArray[np.float64]:
    return np.random.default_rng(number).uniform(0, 65, (HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Images of one value each, the sixth of which cannot be decoded."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    samples = (
        AnnotatedSample(
            f"{n}",
            {
                "jpg": jpeg(image + n, quality=90)[: 200 if n == BAD else None],
                "seg.png": png(seg(n)),
                "inst.png": png(inst(n)),
                "depth.png": png(millimeters(depth(n))),
            },
        )
        for n in range(NUMBER)
    )
    return pack_annotated(samples, tmp_path_factory.mktemp("maps"), shard_size=7)


def stream_of(data: Manifest, maps: tuple[MapSpec, ...] = MAPS) -> SampleStream:
    order = SampleOrder(samples=NUMBER, batch=8, seed=3, lanes=4, chunk=2, mix=2)
    return SampleStream(data, order, Views((Crop(size=SIDE, scale=(0.2, 1.0)),), maps=maps), steps=5)


def rows(stream: SampleStream, lanes: Sequence[int] = range(4), threads: int = 2) -> list[Columns]:
    return list(stream.rows(lanes, 0, stream.steps, threads=threads, memory=2**26))


def by_hand(values: NDArray[np.generic], box: Sequence[int]) -> NDArray[np.generic]:
    """The part in a box, of the nearest pixels, as torchvision makes it."""
    top, left, height, width, mirrored, *_ = box
    whole = torch.tensor(values.astype(np.float64))[None]
    nearest = TF.InterpolationMode.NEAREST_EXACT
    part = TF.resized_crop(whole, top, left, height, width, [SIDE, SIDE], nearest)[0]
    return (part.flip(1) if mirrored else part).numpy()


def test_maps_show_what_the_view_shows(data: Manifest) -> None:
    mirrored = set()
    for row in rows(stream_of(data)):
        for place, index in enumerate(row["index"].tolist()):
            shown = BAD + 1 if index == BAD else index  # the one that can be decoded after it
            assert abs(row["view0"][place].astype(int) - shown).max() <= 1
            box = row["box0"][place].astype(int).tolist()
            classes = seg(shown).astype(int)
            classes[classes == 255] = -1
            np.testing.assert_array_equal(row["map0"][place], by_hand(classes, box))
            doubled = np.kron(inst(shown), np.ones((2, 2), int))
            np.testing.assert_array_equal(row["map1"][place], by_hand(doubled, box))
            np.testing.assert_allclose(row["map2"][place], by_hand(millimeters(depth(shown)), box) / 1000, rtol=1e-6)
            mirrored.add(box[4])
        assert [row[f"map{number}"].dtype for number in range(3)] == [np.int32, np.int32, np.float32]
    assert mirrored == {0, 1}


def test_maps_do_not_depend_on_who_prepares_them(data: Manifest) -> None:
    stream = stream_of(data)
    whole = rows(stream)
    for lanes, threads in (([0, 2], 1), ([1, 3], 3)):
        places = [2 * lane + sample for lane in lanes for sample in range(2)]
        for row, expected in zip(rows(stream, lanes, threads), whole, strict=True):
            for name in ("view0", "map0", "map1", "map2"):
                np.testing.assert_array_equal(row[name], expected[name][places])


def test_views_stay_as_they_are_beside_maps(data: Manifest) -> None:
    for row, bare in zip(rows(stream_of(data)), rows(stream_of(data, ())), strict=True):
        assert set(row) - set(bare) == {"map0", "map1", "map2"}
        np.testing.assert_array_equal(row["view0"], bare["view0"])
    assert stream_of(data).step_bytes(4) == stream_of(data, ()).step_bytes(4) + 8 * 3 * 4 * SIDE**2


def test_a_class_that_the_head_lacks_is_named(data: Manifest) -> None:
    with pytest.raises(DataError, match=r"\d+\.seg\.png shows class 8, and there are 8: set `classes` to more"):
        rows(stream_of(data, (MapSpec("seg", 8),)))


def test_a_batch_holds_them_in_their_order(data: Manifest) -> None:
    stream = stream_of(data)
    row = rows(stream)[0]
    stats = {"image": data.fields["image"]}
    batch = collate(row, stream.views, seed=3, step=0, patch=8, stats=stats, device="cpu")
    blank = blank_batch(stream.views, 8, 8)
    assert [(one.dtype, one.shape) for one in batch.maps] == [(one.dtype, one.shape) for one in blank.maps]
    assert [one.dtype for one in batch.maps] == [torch.int64, torch.int64, torch.float32]
    assert split(batch, 2)[1].maps[1].equal(torch.from_numpy(row["map1"][4:]).long())


@pytest.mark.usefixtures("cluster")
def test_tasks_of_ray_deliver_the_same(data: Manifest) -> None:
    stream = stream_of(data)
    feed = Feed(stream, 0, 1, "ray", 1.0, 2**28)
    for row, expected in zip(feed.steps(0), rows(stream), strict=True):
        for name in ("map0", "map1", "map2"):
            np.testing.assert_array_equal(row[name], expected[name])
