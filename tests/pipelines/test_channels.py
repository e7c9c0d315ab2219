"""Images of any number of channels, of 8 and 16 bits: packed, indexed, streamed, normalized and seen by encoders."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from selfsup.encoder import build
from selfsup.errors import DataError
from selfsup.modality import DecodeError
from selfsup.parts.patch import patchify
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.image import ImageReading
from selfsup.pipelines.modalities.pixels.augment import photometric
from selfsup.pipelines.modalities.pixels.crops import crops
from selfsup.pipelines.modalities.pixels.decode import How, decode
from selfsup.saved import restore_encoder, save_encoder
from selfsup.sections import Backbone, InputShape
from selfsup.views import Crop, Views

BANDS, SIDE, COUNT = 13, 24, 6
ALL = ImageReading(channels=BANDS, depth=16, bits=12)


def scene(number: int) -> NDArray[np.uint16]:
    """(SIDE, SIDE, BANDS) of 12 bits; each band is flat, so that no filter changes it."""
    return np.broadcast_to(np.uint16(100 * number + 200 * np.arange(BANDS)), (SIDE, SIDE, BANDS))


@pytest.fixture
def scenes(tmp_path: Path) -> Manifest:
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        tifffile.imwrite(
            tmp_path / "in" / f"{number}.tif", scene(number), planarconfig="contig", photometric="minisblack"
        )
    return pack(tmp_path / "in", tmp_path / "out", reading={"image": ALL}).manifest


def test_thirteen_channels_keep_their_files_and_have_statistics_of_their_own(scenes: Manifest, tmp_path: Path) -> None:
    stats = scenes.fields["image"]
    assert (stats.channels, stats.depth, stats.bits) == (BANDS, 16, 12)
    values = np.stack([scene(number)[0, 0] for number in range(COUNT)]) / (2**12 - 1)
    np.testing.assert_allclose(stats.mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats.std, values.std(0), atol=1e-5)
    assert SampleReader(scenes, "image").read(np.array([2]))[0].data == (tmp_path / "in" / "2.tif").read_bytes()
    assert load(str(tmp_path / "out")) == scenes
    assert shards.index(str(tmp_path / "out"), reading={"image": ALL}).digest == scenes.digest
    assert shards.check(str(tmp_path / "out")) == []


def test_the_stream_delivers_all_channels_normalized(scenes: Manifest) -> None:
    order, views = SampleOrder(samples=COUNT, batch=4, seed=0, lanes=4), Views((Crop(size=8),))
    [row, *_] = SampleStream(scenes, order, views, 2).rows(range(4), 0, 1, threads=1, memory=2**24)
    expected = np.stack([scene(number)[0, 0] for number in row["index"]]) / (2**12 - 1)
    assert (row["view0"].shape, row["view0"].dtype) == ((4, 8, 8, BANDS), np.float32)
    np.testing.assert_allclose(row["view0"][:, 3, 5], expected, atol=1e-6)
    row.pop("bad")
    batch = collate(row, views, seed=0, step=0, patch=None, stats=scenes.fields, device="cpu")
    stats = scenes.fields["image"]
    value = (expected - np.array(stats.mean)) / np.array(stats.std)
    np.testing.assert_allclose(batch.views[0].value[:, :, 3, 5], value, atol=1e-4)


@pytest.mark.usefixtures("scenes")
def test_other_channels_than_said_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"out: none of 6 samples tried can be decoded: 0: .* add --channels 13 to keep all"
    ):
        shards.index(str(tmp_path / "out"))
    with pytest.raises(DataError, match="13 channels; expected 5: index shards of images with one number of channels"):
        shards.index(str(tmp_path / "out"), reading={"image": ImageReading(channels=5)})


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_gray_is_one_channel_whatever_the_format(kind: str) -> None:
    ramp, sink = np.arange(256, dtype=np.uint8).reshape(16, 16), io.BytesIO()
    Image.fromarray(ramp).save(sink, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[kind], quality=100)
    values = decode(sink.getvalue(), min_height=16, min_width=16, how=How(channels=1))
    assert (values.shape, values.dtype) == ((16, 16, 1), np.uint8)
    assert np.abs(values[..., 0].astype(int) - ramp).max() <= (2 if kind == "jpg" else 0)
    deep = decode(sink.getvalue(), min_height=16, min_width=16, how=How(channels=1, depth=16))
    np.testing.assert_allclose(deep, values / 255, atol=1e-7)


def test_sixteen_bits_are_kept_where_eight_would_round_them_away() -> None:
    sink = io.BytesIO()
    Image.fromarray(np.array([[1000, 1001], [65535, 0]], np.uint16)).save(sink, "PNG")
    deep = decode(sink.getvalue(), min_height=2, min_width=2, how=How(channels=1, depth=16))
    np.testing.assert_allclose(deep[..., 0] * 65535, [[1000, 1001], [65535, 0]], atol=0.01)
    assert decode(sink.getvalue(), min_height=2, min_width=2, how=How(channels=1)).tolist()[0] == [[4], [4]]


def test_colors_become_gray_by_luma_and_four_channels_are_kept() -> None:
    sink = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 7)).save(sink, "PNG")
    shape = {"min_height": 2, "min_width": 2}
    assert decode(sink.getvalue(), **shape, how=How(channels=1))[0, 0].tolist() == [76]  # 0.299 of 255
    assert decode(sink.getvalue(), **shape, how=How(channels=4))[0, 0].tolist() == [255, 0, 0, 7]
    with pytest.raises(DecodeError, match="4 channels; expected 5"):
        decode(sink.getvalue(), **shape, how=How(channels=5))


@pytest.mark.parametrize("side", [8.0, 7.5])  # resized by torch, and by Pillow
def test_a_dark_fourth_channel_leaves_the_others_as_they_are(side: float) -> None:
    sink = io.BytesIO()
    Image.fromarray(np.full((8, 8, 4), (200, 100, 50, 1), np.uint8)).save(sink, "PNG")
    box = np.array([[0.0, 0.0, side, side]])
    [crop] = crops(sink.getvalue(), box, [4], ["bicubic"], how=How(channels=4))
    assert (crop == (200, 100, 50, 1)).all()


def test_photometry_of_other_channels_is_that_of_their_mean() -> None:
    crop, images = Crop(gray=1.0), torch.rand(2, 5, 8, 8)
    changed = images.clone()
    photometric(changed, crop, torch.zeros(2, 13))
    torch.testing.assert_close(changed, images.mean(1, keepdim=True).expand_as(images))
    turned = images.clone()
    photometric(turned, Crop(jitter=1.0, hue=0.5), torch.full((2, 13), 0.1))
    assert turned.equal(images)


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch16_224", 8), ("resnet18", None)])
def test_encoders_see_any_number_of_channels_and_are_saved_with_it(
    name: str, patch: int | None, tmp_path: Path
) -> None:
    backbone, shape = Backbone(name=name, image_size=32, patch_size=patch), InputShape(BANDS, (32, 32))
    encoder, images = build(backbone, shape=shape).eval(), torch.randn(2, BANDS, 32, 32)
    view = patchify(images, patch) if patch else images
    save_encoder(encoder, backbone, tmp_path / "encoder.safetensors", shape)
    assert restore_encoder(tmp_path / "encoder.safetensors").eval().pooled(view).equal(encoder.pooled(view))


def test_given_weights_of_colors_are_summed_for_gray(tmp_path: Path) -> None:
    backbone = Backbone(name="resnet18", image_size=32)
    colors = build(backbone)
    torch.save(colors.trunk.state_dict(), tmp_path / "rgb.pth")
    given = backbone.model_copy(update={"weights": str(tmp_path / "rgb.pth")})
    gray = build(given, shape=InputShape(1, (32, 32)))
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(gray.eval().pooled(image), colors.eval().pooled(image.expand(-1, 3, -1, -1)))
