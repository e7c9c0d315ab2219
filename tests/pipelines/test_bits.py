"""Images that use 12 of their 16 bits: 4095 is white wherever they are read, if one says so, and one is asked to.

Expected levels are v * 255 / 4095, rounded by hand.
"""

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from selfsup.errors import DataError
from selfsup.modality import DecodeError
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.image import ImageReading
from selfsup.pipelines.modalities.pixels.decode import How, decode, decode_scaled, depth
from selfsup.pipelines.stages.evaluate import Load
from selfsup.views import Center, Crop, Views

LEVELS = {0: 0, 8: 0, 9: 1, 1000: 62, 2047: 127, 2048: 128, 3000: 187, 4087: 255, 4095: 255}
KINDS = ["png 1", "png 2", "png 3", "png 4", "tif 1", "tif 3"]  # format and channels; 2 and 4: with alpha


def coded(kind: str, pixels: np.ndarray) -> bytes:
    """(H, W) values of 16 bits in every color; alpha is full."""
    channels = int(kind[-1])
    alpha = np.full_like(pixels, 65535)
    wide = np.stack([pixels] * (3 if channels > 2 else 1) + [alpha] * (channels % 2 == 0), axis=2)
    return png(wide) if kind.startswith("png") else tif(wide)


def png(wide: np.ndarray) -> bytes:
    """By hand: Pillow writes no colors of 16 bits."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width, channels = wide.shape
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tif(wide: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, wide if wide.shape[2] > 1 else wide[..., 0], **options)
    return sink.getvalue()


def plain(value: int) -> np.ndarray:
    return np.full((24, 24), value, np.uint16)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_twelve_bits(kind: str) -> None:
    values = np.tile(np.array(list(LEVELS), np.uint16), (5, 1))
    data = coded(kind, values)
    assert depth(data) == 12
    made = decode(data, min_height=1, min_width=1, how=How(bits=12))
    assert made.shape == (*values.shape, 3)
    assert (made == np.array(list(LEVELS.values()))[:, None]).all()
    assert (decode_scaled(data, 1, how=How(bits=12))[0] == made).all()
    assert decode(data, min_height=1, min_width=1).max() in (15, 16)  # 4095 of 65535, cut and rounded


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_above_white_is_white_and_all_bits_are_the_default(kind: str) -> None:
    data = coded(kind, plain(65535))
    assert depth(data) == 16
    for bits in (None, 12, 16):
        assert (decode(data, min_height=1, min_width=1, how=How(bits=bits)) == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_eight_bits_are_not_touched(mode: str) -> None:
    sink = io.BytesIO()
    Image.new("L", (8, 8), 7).convert(mode).save(sink, "PNG")
    assert depth(sink.getvalue()) == 0
    assert (decode(sink.getvalue(), min_height=1, min_width=1, how=How(bits=12)) == 7).all()


@pytest.mark.parametrize(
    "pixels",
    [np.full((8, 8), 0.5, np.float32), np.full((8, 8), 70_000, np.int32), np.full((8, 8), -1, np.int16)],
    ids=["floating", "32 bits", "signed"],
)
def test_values_that_no_sixteen_bits_hold_are_not_made_black_or_white(pixels: np.ndarray) -> None:
    with pytest.raises(DecodeError, match="save it with 8 or 16 bits"):
        decode(tif(pixels[..., None]), min_height=1, min_width=1)


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"byteorder": ">"}, {"rowsperstrip": 7}])
def test_colors_of_a_tiff_however_it_is_written(options: dict[str, object]) -> None:
    wide = np.random.default_rng(0).integers(0, 4096, (40, 30, 3)).astype(np.uint16)
    made = decode(tif(wide, photometric="rgb", **options), min_height=1, min_width=1, how=How(bits=12))
    assert (made == np.floor(wide * (255 / 4095) + 0.5)).all()


def test_colors_that_lie_apart_are_not_taken_for_eight_bits() -> None:
    apart = np.zeros((3, 40, 30), np.uint16)
    for bits in (None, 12):
        with pytest.raises(DecodeError, match="separate planes"):
            decode(
                tif(apart, photometric="rgb", planarconfig="separate"), min_height=1, min_width=1, how=How(bits=bits)
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_undecodable(kind: str) -> None:
    data = coded(kind, np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16))
    with pytest.raises(DecodeError):
        decode(data[: len(data) * 2 // 3], min_height=1, min_width=1, how=How(bits=12))


def sharded(folder: Path) -> str:
    """A sample of each kind with the value 1000, and one of each with 4095."""
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, (kind, value) in enumerate((kind, value) for value in (1000, 4095) for kind in KINDS):
            data = coded(kind, plain(value))
            member = tarfile.TarInfo(f"{number}.{kind[:3]}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(folder)


def test_shards_are_indexed_once_one_says_how_many_bits_are_used(tmp_path: Path) -> None:
    url = sharded(tmp_path / "set")
    with pytest.raises(DataError, match=r"set: images of 16 bits .* more than 12 bits; add --bits 12 .*--bits 16"):
        shards.index(url)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["0.tar"]
    dark = shards.index(url, reading={"image": ImageReading(bits=16)})
    head = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert (dark.fields["image"].bits, head["fields"]["image"]["bits"]) == (None, None)
    told = shards.index(url, reading={"image": ImageReading(bits=12)})
    assert (told.fields["image"].bits, load(url).fields["image"].bits) == (12, 12)
    assert told.digest != dark.digest
    assert told.fields["image"].mean == pytest.approx([(62 + 255) / 2 / 255] * 3, abs=1e-6)


def test_the_bits_are_under_the_digest(tmp_path: Path) -> None:
    shards.index(sharded(tmp_path / "set"), reading={"image": ImageReading(bits=12)})
    path = tmp_path / "set" / "manifest.json"
    for bits in (10, None):
        head = json.loads(path.read_text())
        head["fields"]["image"]["bits"] = bits
        path.write_text(json.dumps(head))
        with pytest.raises(DataError, match="one was changed"):
            load(str(tmp_path / "set"))


def test_training_and_evaluation_read_by_the_bits_of_their_data(tmp_path: Path) -> None:
    told = shards.index(sharded(tmp_path / "set"), reading={"image": ImageReading(bits=12)})
    expected = np.repeat([62, 255], len(KINDS))
    centers = Load(told, told, Center(size=16, share=0.875))({"id": np.arange(2 * len(expected))})
    assert (centers["sample"] == np.tile(expected, 2)[:, None, None, None]).all()
    order = SampleOrder(samples=len(expected), batch=4, seed=0, lanes=4)
    for row in SampleStream(told, order, Views((Crop(size=16),)), 3).rows(range(4), 0, 3, threads=1, memory=2**24):
        assert (row["view0"] == expected[row["index"]][:, None, None, None]).all()


def test_images_are_packed_once_one_says_how_many_bits_are_used(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ramp = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (64, 1))
    ramp[:, -1] = 4095
    for kind in KINDS:
        (tmp_path / "in" / f"{kind}.{kind[:3]}").write_bytes(coded(kind, ramp))
    with pytest.raises(DataError, match=r"in: images of 16 bits .* more than 12 bits; add --bits 12 .*--bits 16"):
        pack(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for bits, most in ((12, 255), (16, 16)):
        made = pack(tmp_path / "in", tmp_path / f"{bits}", reading={"image": ImageReading(bits=bits)}, quality=100)
        assert (len(made.skipped), made.manifest.fields["image"].bits) == (0, None)  # they are JPEGs now
        for sample in SampleReader(made.manifest, "image").read(np.arange(len(KINDS))):
            gray = np.asarray(Image.open(io.BytesIO(sample.data)).convert("L")).astype(int)
            assert np.abs(gray - ramp * (255 / (2**bits - 1))).max() <= 2
            assert abs(gray.max() - most) <= 1
