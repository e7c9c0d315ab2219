import io
import struct
import zlib

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.decode import Undecodable, backend, crops, decode, dimensions, resize_box

HEIGHT, WIDTH = 427, 640


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(sklearn.datasets.load_sample_image("china.jpg"))


def coded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_dimensions_are_height_then_width(photo: Image.Image, kind: str) -> None:
    assert dimensions(coded(photo, kind)) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("options", [{"quality": 92}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}])
def test_a_whole_jpeg_is_what_pillow_decodes(photo: Image.Image, options: dict[str, object]) -> None:
    data = coded(photo, **options)
    ours = decode(data, min_height=HEIGHT, min_width=WIDTH)
    assert np.abs(ours - by_pillow(data)).max() <= 3  # two builds of libjpeg-turbo


def test_decodes_at_the_smallest_quick_scale_that_is_large_enough(photo: Image.Image) -> None:
    data = coded(photo)
    asked = {(1, 1): 1, (54, 80): 1, (55, 80): 2, (161, 240): 3, (161, 241): 4, (215, 1): 8, (9999, 1): 8}
    for (height, width), eighths in asked.items():
        expected = -(-HEIGHT * eighths // 8), -(-WIDTH * eighths // 8), 3
        assert decode(data, min_height=height, min_width=width).shape == expected


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("box", "size", "mean_error"),
    [
        ((10, 20, 200, 300), 224, 0.5),  # whole decode: Pillow's numbers but for rounding
        ((11, 21, 401, 402), 64, 2.0),  # 2/8, or the scaling of the DCT would show
        ((100.3, 77.7, 130.2, 99.9), 24, 4.0),  # hardly anything is left to Pillow
        ((0, 0, HEIGHT, WIDTH), 40, 2.0),
    ],
)
def test_a_crop_is_what_pillow_makes_of_the_whole_image(
    photo: Image.Image, box: tuple[float, ...], size: int, mean_error: float, resample: str
) -> None:
    data = coded(photo, quality=92)
    top, left, height, width = box
    how = Image.Resampling[resample.upper()]
    whole = Image.open(io.BytesIO(data)).resize((size, size), how, box=(left, top, left + width, top + height))
    (ours,) = crops(data, np.array([box]), [size], [resample])
    assert ours.shape == (size, size, 3)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - np.asarray(whole)).mean() < mean_error


@pytest.mark.parametrize("size", [12, 24, 36, 48])
def test_a_scaled_crop_is_where_it_should_be(photo: Image.Image, size: int) -> None:
    data, box = coded(photo, quality=92), np.array([[101.0, 77, 97, 97]])  # at 1/8, 2/8, 3/8, 4/8
    (ours,) = crops(data, box, [size], ["bicubic"])
    error = {}
    for shift in [(0, 0), (1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5)]:
        top, left = box[0, :2] + shift
        whole = Image.open(io.BytesIO(data)).resize((size, size), 3, box=(left, top, left + 97, top + 97))
        error[shift] = np.abs(ours.astype(int) - np.asarray(whole)).mean()
    assert min(error, key=error.__getitem__) == (0, 0)


def test_all_boxes_share_a_decode_that_is_large_enough_for_the_most_demanding(photo: Image.Image) -> None:
    data = coded(photo, quality=92)
    boxes = np.array([[0, 0, 400, 400], [50, 60, 40, 40]], dtype=float)
    large, small = crops(data, boxes, [64, 40], ["bicubic", "bilinear"])
    assert large.shape == (64, 64, 3)
    exact = by_pillow(data)[50:90, 60:100]  # its 40 pixels at full size: nothing is interpolated
    assert np.abs(small - exact).max() <= 3


def test_resize_box_is_pillows(photo: Image.Image) -> None:
    ours = resize_box(np.asarray(photo), (5.5, 6.25, 100, 50), size=32, resample="bicubic")
    theirs = photo.resize((32, 32), Image.Resampling.BICUBIC, box=(6.25, 5.5, 56.25, 105.5))
    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_a_box_may_pass_the_edge_by_a_rounding_error(photo: Image.Image) -> None:
    box = np.array([[-1e-9, 0.1, HEIGHT + 1e-9, WIDTH - 0.1 + 1e-9]])
    assert crops(coded(photo), box, [16], ["bicubic"])[0].shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("mode", "kind", "colour", "expected"),
    [
        ("L", "JPEG", 100, (100, 100, 100)),
        ("CMYK", "JPEG", (0, 255, 255, 0), (255, 0, 0)),
        ("L", "PNG", 7, (7, 7, 7)),
        ("1", "PNG", 1, (255, 255, 255)),
        ("LA", "PNG", (9, 0), (9, 9, 9)),
        ("RGBA", "PNG", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBA", "WEBP", (200, 100, 50, 255), (200, 100, 50)),
        ("I;16", "PNG", 257 * 40, (40, 40, 40)),
        ("I;16", "PNG", 65535, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, kind: str, colour: object, expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (16, 24), colour)  # type: ignore[arg-type]
    made = decode(coded(image, kind, **({"lossless": True} if kind == "WEBP" else {})), min_height=1, min_width=24)
    assert made.shape[2] == 3
    assert np.abs(made.reshape(-1, 3) - np.array(expected)).max() <= (2 if kind == "JPEG" else 0)


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    made = decode(coded(image, "PNG", transparency=bytes([255, 128])), min_height=1, min_width=1)
    assert (made == (10, 200, 30)).all()


def test_the_orientation_tag_is_ignored(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = coded(photo, exif=exif)
    assert dimensions(data) == (HEIGHT, WIDTH)
    assert decode(data, min_height=HEIGHT, min_width=WIDTH).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.95])
def test_a_truncated_image_is_undecodable(photo: Image.Image, kind: str, share: float) -> None:
    data = coded(photo, kind)
    with pytest.raises(Undecodable):
        decode(data[: int(len(data) * share)], min_height=1, min_width=1)


def test_a_corrupt_jpeg_is_undecodable(photo: Image.Image) -> None:
    data = bytearray(coded(photo))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff\xd3" * 32  # restart markers where there are none
    with pytest.raises(Undecodable):
        crops(bytes(data), np.array([[0.0, 0, 100, 100]]), [8], ["bicubic"])


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    side = 20_000

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    small = coded(Image.new("L", (8, 8)))
    place = small.index(b"\xff\xc0") + 5
    jpeg = small[:place] + struct.pack(">HH", side, side) + small[place + 4 :]
    for data in (png, jpeg):
        with pytest.raises(Undecodable, match="bomb"):
            dimensions(data)
        with pytest.raises(DataError, match="bomb"):  # the platform's own kind, too
            decode(data, min_height=1, min_width=1)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    with pytest.raises(Undecodable):
        dimensions(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_the_decoder_is_named() -> None:
    assert backend().startswith("simplejpeg ")
