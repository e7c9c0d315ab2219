import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
import sklearn.datasets
from PIL import Image

from selfsup.errors import DataError
from selfsup.modality import DecodeError
from selfsup.pipelines.modalities.pixels.decode import backend, decode, decode_scaled, dimensions

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


@pytest.mark.parametrize(
    ("mode", "kind", "color", "expected"),
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
def test_every_mode_becomes_rgb(mode: str, kind: str, color: object, expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (16, 24), color)  # type: ignore[arg-type]
    made = decode(coded(image, kind, **({"lossless": True} if kind == "WEBP" else {})), min_height=1, min_width=24)
    assert made.shape[2] == 3
    assert np.abs(made.reshape(-1, 3) - np.array(expected)).max() <= (2 if kind == "JPEG" else 0)


def test_a_palette_with_transparency_keeps_its_colors() -> None:
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
    with pytest.raises(DecodeError):
        decode(data[: int(len(data) * share)], min_height=1, min_width=1)


def test_a_corrupt_jpeg_is_undecodable(photo: Image.Image) -> None:
    data = bytearray(coded(photo))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff\xd3" * 32  # restart markers where there are none
    with pytest.raises(DecodeError):
        decode_scaled(bytes(data), 1)


def with_sampling(photo: Image.Image, sampling: str) -> bytes:
    pixels = np.ascontiguousarray(photo.convert("RGB"))
    return bytes(simplejpeg.encode_jpeg(pixels, quality=92, colorsubsampling=sampling))


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("side", [64, 128])
def test_colors_are_not_coarse_at_a_fraction_of_the_size(sampling: str, side: int) -> None:
    """Against the whole image, by Pillow, resized, on colors that change every 16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = with_sampling(Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC), sampling)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    least = decode(data, min_height=side, min_width=side), decode_scaled(data, 8 * side / 512, (1, 2, 8))[0]
    for made in least:
        assert min(made.shape[:2]) >= side
        small = Image.fromarray(made).resize((side, side), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 2


@pytest.mark.parametrize("factors", [0x14, 0x24, 0x31, 0x44])
def test_any_sampling_has_dimensions(photo: Image.Image, factors: int) -> None:
    """4:4:1, and some that have no name: the sampling factors of luma stand in the header of the frame."""
    data = bytearray(coded(photo, subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = factors
    assert dimensions(bytes(data)) == (HEIGHT, WIDTH)


SCAN, BEFORE = b"\xff\xda", b"\xff\xdb"


def odd_scan(data: bytes) -> bytes:
    """The last bytes of a scan's header as a phone writes them: no end of the spectrum."""
    place = data.index(SCAN)
    place += 5 + 2 * data[place + 4]
    return data[:place] + bytes(3) + data[place + 3 :]


ODDITIES = {
    "odd scan header": odd_scan,
    "stray bytes before the end": lambda data: data[:-2] + b"\x12\x34\x56" + data[-2:],
    "stray bytes before a table": lambda data: data.replace(BEFORE, bytes(2) + BEFORE, 1),
    "another revision": lambda data: data[:11] + b"\x02\x01" + data[13:],
    "notes after the end": lambda data: data + bytes(300) + b"notes",
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_oddity_that_takes_no_pixels_is_no_damage(photo: Image.Image, oddity: str, progressive: bool) -> None:
    plain = coded(photo, quality=90, progressive=progressive)
    odd = ODDITIES[oddity](plain)
    assert dimensions(odd) == (HEIGHT, WIDTH)
    for eighths in (1, 2, 3, 4, 8):
        image, scale = decode_scaled(odd, eighths)
        assert image.shape[0] == -(-HEIGHT * scale * 8 // 8)
        if scale == 1 and not (progressive and oddity == "odd scan header"):  # in which its first scan is another
            assert np.abs(image - by_pillow(plain)).max() <= 3


CUTS = {
    "without its end": lambda data: data[:-2],
    "cut": lambda data: data[: len(data) // 2],
    "cut and closed": lambda data: data[: len(data) // 2] + b"\xff\xd9",
    "cut, with an odd scan header": lambda data: odd_scan(data)[: len(data) // 2],
    "zeros from the middle on": lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_jpeg_is_undecodable_at_every_scale(photo: Image.Image, cut: str) -> None:
    data = CUTS[cut](coded(photo, quality=90))
    for eighths in (1, 2, 3, 4, 8):
        with pytest.raises(DecodeError):
            decode_scaled(data, eighths)
    with pytest.raises(DecodeError):
        decode(data, min_height=1, min_width=1)


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
        with pytest.raises(DecodeError, match="bomb"):
            dimensions(data)
        with pytest.raises(DataError, match="bomb"):  # the platform's own kind, too
            decode(data, min_height=1, min_width=1)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    with pytest.raises(DecodeError):
        dimensions(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_the_decoder_is_named() -> None:
    assert backend().startswith("simplejpeg ")
