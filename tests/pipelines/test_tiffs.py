"""TIFFs of rarer kinds: the right pixels, or a refusal that names the kind and says what to do.

Expected levels follow from the TIFF 6.0 specification: white where ink or WhiteIsZero is 0, colors over alpha where
they are multiplied by it.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from selfsup.modality import DecodeError
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.shards import index
from selfsup.pipelines.modalities.pixels import bands
from selfsup.pipelines.modalities.pixels.decode import How, decode, depth


def tif(pixels: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, pixels, **options)
    return sink.getvalue()


def color(data: bytes, bits: int | None = None) -> list[int]:
    made = decode(data, min_height=1, min_width=1, how=How(bits=bits))
    assert (made == made[0, 0]).all()
    return [int(value) for value in made[0, 0]]


def plain(values: list[int], kind: type = np.uint16) -> np.ndarray:
    return np.tile(np.array(values, kind), (8, 9, 1))


STORED = [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"byteorder": ">", "compression": "zlib"}]


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize(("bits", "white"), [(None, 65535), (12, 4095)])
def test_ink_of_sixteen_bits(stored: dict[str, str], bits: int | None, white: int) -> None:
    for inks, expected in (([0, 0, 0, 0], 255), ([0, 0, 0, white], 0), ([white, white, white, 0], 0)):
        data = tif(plain(inks), photometric="separated", planarconfig="contig", **stored)
        assert color(data, bits) == [expected] * 3
    data = tif(plain([white, 0, 0, 0]), photometric="separated", planarconfig="contig", **stored)
    assert color(data, bits) == [0, 255, 255]
    assert depth(data) == (bits or 16)


@pytest.mark.parametrize("stored", STORED[:2], ids=str)  # Pillow opens no others
@pytest.mark.parametrize(("bits", "most"), [(None, 65535), (12, 4095)])
def test_grey_of_sixteen_bits_whose_white_is_zero(stored: dict[str, str], bits: int | None, most: int) -> None:
    for value, expected in ((0, 255), (most // 5, 204), (most, 0)):
        data = tif(plain([value])[..., 0], photometric="miniswhite", **stored)
        assert color(data, bits) == [expected] * 3


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize(("bits", "most"), [(None, 65535), (12, 4095)])
def test_colors_multiplied_by_alpha(stored: dict[str, str], bits: int | None, most: int) -> None:
    """The quotient is the same whatever is white, and is taken of all 16 bits: of 12, Pillow's would have 15 levels."""
    values = [most // 5, most // 10, 0, most // 2]
    data = tif(plain(values), photometric="rgb", planarconfig="contig", extrasamples=[1], **stored)
    assert color(data) == color(data, bits) == [round(255 * value / values[3]) for value in values[:3]]
    assert depth(data) == 0
    assert color(tif(plain([0, 0, 0, 0]), photometric="rgb", extrasamples=[1], **stored)) == [0, 0, 0]


def test_grey_of_eight_bits_multiplied_by_alpha() -> None:
    data = tif(plain([60, 128], np.uint8), photometric="minisblack", planarconfig="contig", extrasamples=[1])
    assert color(data) in ([119] * 3, [120] * 3)  # 255 * 60 / 128 = 119.5


@pytest.mark.parametrize(
    ("kind", "bands", "options"),
    [
        ("LAB of 16+16+16 bits, which cannot be read", 3, {"photometric": "cielab"}),
        ("YCbCr of 16+16+16 bits, which cannot be read", 3, {"photometric": "ycbcr"}),
        ("gray of 16+16 bits, which cannot be read", 2, {"photometric": "minisblack", "extrasamples": [2]}),
        ("LAB of 16+16+16 bits, which cannot be read", 3, {"photometric": "cielab", "bigtiff": True}),
    ],
)
def test_what_is_not_opened_is_named(kind: str, bands: int, options: dict[str, object]) -> None:
    data = tif(plain([9] * bands), planarconfig="contig", **options)
    with pytest.raises(DecodeError) as error:
        decode(data, min_height=1, min_width=1)
    assert str(error.value) == f"a TIFF, {kind}: save it as PNG"


APART = [
    (np.uint16, "rgb", 3, {}),
    (np.uint16, "separated", 4, {}),
    (np.uint8, "cielab", 3, {}),
    (np.uint8, "cielab", 3, {"compression": "zlib"}),
    (np.uint8, "ycbcr", 3, {}),
    (np.uint8, "minisblack", 2, {"extrasamples": [1], "compression": "zlib"}),
    (np.uint16, "rgb", 4, {"extrasamples": [1], "compression": "zlib"}),
]


@pytest.mark.parametrize(("kind", "colors", "bands", "options"), APART)
def test_what_lies_apart_is_refused_where_it_would_be_wrong(
    kind: type, colors: str, bands: int, options: dict[str, object]
) -> None:
    data = tif(np.full((bands, 8, 9), 60, kind), photometric=colors, planarconfig="separate", **options)
    for bits in (None, 12):
        with pytest.raises(DecodeError, match=r"a TIFF, \w+ of [+\d]+ bits, with colors in separate planes: save"):
            decode(data, min_height=1, min_width=1, how=How(bits=bits))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_what_lies_apart_is_read_where_it_is_right(options: dict[str, str]) -> None:
    apart = np.moveaxis(plain([10, 20, 30], np.uint8), 2, 0)
    assert color(tif(apart, photometric="rgb", planarconfig="separate", **options)) == [10, 20, 30]


def test_signed_values_that_would_be_wrong_are_refused() -> None:
    wrong = tif(np.full((8, 9), -5, np.int8)), tif(np.full((8, 9), 500, np.int16), byteorder=">", compression="zlib")
    for data in wrong:
        with pytest.raises(DecodeError, match=r"gray of .* of signed values: save it as PNG"):
            decode(data, min_height=1, min_width=1)
    assert color(tif(np.full((8, 9), 2570, np.int16), byteorder=">")) == [10, 10, 10]


def test_a_file_of_a_set_of_files_is_its_own_planes() -> None:
    """OME-TIFF lets each file of a set describe the whole set; tifffile gives the planes of absent files as zeros."""
    plane = '<TiffData FirstT="{0}" IFD="0" PlaneCount="1"><UUID FileName="{0}.ome.tif">urn:uuid:{0}</UUID></TiffData>'
    sizes = 'DimensionOrder="XYZCT" Type="uint16" SizeX="9" SizeY="8" SizeZ="1" SizeC="1" SizeT="2"'
    pixels = f"<Image><Pixels {sizes}>{plane.format(0)}{plane.format(1)}</Pixels></Image>"
    about = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">{pixels}</OME>'
    data = tif(np.full((8, 9), 700, np.uint16), description=about, metadata=None)
    assert tifffile.imread(io.BytesIO(data)).shape == (2, 8, 9)
    values, _ = bands.read(data)
    assert values.shape == (8, 9, 1)
    assert (values == 700).all()


def test_index_says_that_some_cannot_be_decoded_and_why(tmp_path: Path) -> None:
    images = {"a.tif": tif(plain([9, 9, 9]), photometric="cielab"), "b.tif": tif(plain([9] * 3, np.uint8))}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("a.tif", "b.tif"):
            tar.add(tmp_path / name, name)
    remarks: list[str] = []
    index(str(tmp_path), remark=remarks.append)
    why = "a TIFF, LAB of 16+16+16 bits, which cannot be read: save it as PNG"
    assert f"{tmp_path}: 1 of 2 samples tried cannot be decoded, the first: a: {why}" in remarks


def test_pack_says_which_it_leaves_out_and_why(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 8)).save(tmp_path / "in" / "a.png")
    lab = tmp_path / "in" / "b.tif"
    lab.write_bytes(tif(plain([9, 9, 9]), photometric="cielab", planarconfig="contig"))
    made = pack(tmp_path / "in", tmp_path / "out")
    assert made.skipped == {str(lab): "a TIFF, LAB of 16+16+16 bits, which cannot be read: save it as PNG"}
