"""Bytes of an image -> its pixels, at a fraction of its size where that is enough.

JPEG goes through libjpeg-turbo, which can decode at a fraction of the size; Pillow takes every other format and the few
JPEGs that libjpeg-turbo does not turn into RGB. Orientation tags are ignored, as torchvision does.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from selfsup.errors import DataError

Data = bytes | memoryview  # of an image in its format
Pixels = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a file for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none that starts other programs
CHROMA = {"422": 4, "440": 4, "411": 8}  # how much larger than asked they are decoded, to be as exact as 4:2:0
IHDR_DEPTH = 24  # where a PNG tells the bits of each of its channels
OTHER_ORDER = {"LA;16B": "RGBA"} | {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in ("BL", "LB", "NB")  # N: as this machine's, L
}  # of the bytes of colours of 16 bits, by Pillow's names
EIGHTHS = (1, 2, 3, 4, 8)  # 5/8 to 7/8 take longer to decode than the whole image (3.8 against 2.6 ms at 640x427)


class Undecodable(DataError, ValueError):  # noqa: N818 (what it is, not what went wrong)
    """These bytes are no whole image."""


def backend() -> str:
    """The decoder in use, for the record of a run."""
    return f"simplejpeg {version('simplejpeg')}, Pillow {version('pillow')}"


def dimensions(data: Data) -> tuple[int, int]:
    """(height, width) from the header alone. Undecodable for a broken header or more than 178 megapixels."""
    height, width, _ = _header(data)
    return height, width


def decode(data: Data, *, min_height: int, min_width: int, bits: int | None = None) -> Pixels:
    """-> (H, W, 3) RGB. A JPEG comes at the smallest quick scale that is no smaller than asked; never enlarged.

    Grey, CMYK, palette and 16-bit images are converted, alpha is dropped. bits: how many of the 16 are in use, so that
    their greatest value is white; None: all. Undecodable for corrupt or truncated data.
    """
    height, width, chroma = _header(data)
    if not chroma:
        return _pillow(data, bits)
    least = chroma * min_height, chroma * min_width
    eighths = next((n for n in EIGHTHS if _scaled(height, n) >= least[0] and _scaled(width, n) >= least[1]), 8)
    return _turbo(data, height, width, eighths)[0]


def scaled(
    data: Data, needed: float, choices: Sequence[int] = EIGHTHS, *, bits: int | None = None
) -> tuple[Pixels, float]:
    """-> (H, W, 3) RGB, and its scale. A JPEG comes at the first of `choices` in eighths that has those `needed`.

    Any other image is whole. bits, and Undecodable, as above.
    """
    height, width, chroma = _header(data)
    if not chroma:
        return _pillow(data, bits), 1.0
    return _turbo(data, height, width, next(n for n in choices if n >= chroma * needed or n == 8))


def _scaled(length: int, eighths: int) -> int:
    """libjpeg-turbo rounds up."""
    return -(-length * eighths // 8)


def _header(data: Data) -> tuple[int, int, int]:
    """Height, width, and how much larger than asked it is to be decoded; 0: by Pillow.

    libjpeg-turbo scales the chroma of 4:2:0 by less than luma, so that it comes out as large. Where only one side is
    halved it cannot, and enlarges chroma of half that size, with a blur.
    """
    try:
        height, width, colours, sampling = simplejpeg.decode_jpeg_header(data)
        chroma = 0 if colours in ("CMYK", "YCCK") else CHROMA.get(sampling, 1)
    except (ValueError, KeyError):  # the latter for 4:4:1
        with _opened(data) as image:
            (width, height), chroma = image.size, 0
    if height * width > MAX_PIXELS:
        raise Undecodable(f"{width}x{height} pixels are more than {MAX_PIXELS}: taken for a decompression bomb")
    return height, width, chroma


def _turbo(data: Data, height: int, width: int, eighths: int) -> tuple[Pixels, float]:
    """-> (H, W, 3) RGB, and its scale: that asked for, but for what only Pillow decodes."""
    least = _scaled(height, eighths), _scaled(width, eighths)
    try:
        image: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1], strict=True)
    except ValueError as error:
        if "premature end" in str(error).lower():  # of the file, or of a scan
            raise Undecodable(f"not a whole JPEG: {error}") from error
        return _pillow(data), 1.0  # an oddity that takes no pixels; Pillow tells if the file is cut as well
    return image, eighths / 8


def depth(data: Data) -> int:
    """How many bits the values of an image of more than 8 bits take; 0 for any other. Undecodable as above."""
    if data[:2] == b"\xff\xd8":
        return 0
    with _opened(data) as image, _whole(image):
        if image.mode.startswith("I"):
            return int(np.asarray(image).max()).bit_length()
        if not _is_wide(image, data):
            return 0
        return 8 + int(np.asarray(image.convert("RGB")).max()).bit_length()  # of the high bytes


def _pillow(data: Data, bits: int | None = None) -> Pixels:
    with _opened(data) as image, _whole(image):
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
            return _narrowed(np.asarray(image)[..., None], bits)
        if _is_wide(image, data) and bits:  # of which Pillow keeps the high bytes alone
            return _narrowed(_wide(image, data), bits)
        return np.asarray(_rgb(image))


@contextmanager
def _whole(image: Image.Image) -> Iterator[None]:
    try:
        yield
    except Undecodable:
        raise
    except Exception as error:  # Pillow's decoders let many kinds escape on hostile bytes
        raise Undecodable(f"not a whole {image.format}: {error}") from error


def _opened(data: Data) -> ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as above
        raise Undecodable(f"no image in a known format ({', '.join(FORMATS)}): {error}") from error


def _is_wide(image: Image.Image, data: Data) -> bool:
    """Whether it has colours, or grey and alpha, of 16 bits each. Undecodable where Pillow would take these for 8."""
    if image.format == "PNG":
        return data[IHDR_DEPTH] == 16
    if not isinstance(image, TiffImageFile) or max(image.tag_v2.get(BITSPERSAMPLE, (8,))) != 16:
        return False
    modes = {_how(tile)[0] for tile in image.tile}
    if not all(";16" in mode for mode in modes):
        raise Undecodable("a TIFF of 16 bits whose colours lie apart: save it as PNG")
    return modes <= OTHER_ORDER.keys()


def _wide(image: Image.Image, data: Data) -> NDArray[Any]:
    """-> (H, W, bands) of 16 bits

    Pillow keeps the high bytes; told that the bytes stand the other way round, it keeps the low ones.
    """
    with _opened(data) as other:
        tiles = [(tile, *_how(tile)) for tile in other.tile]
        other.tile = [tile._replace(args=(OTHER_ORDER[mode], *rest)) for tile, mode, rest in tiles]
        low = np.asarray(other)
    grey = tiles[0][1] == "LA;16B"  # of which all four bytes are kept
    wide: NDArray[np.int64] = 256 * np.asarray(image).astype(np.int64) + (low[..., 1:2] if grey else low)
    return wide


def _how(tile: Any) -> tuple[str, Sequence[Any]]:
    """How the bytes of a part of an image stand, by Pillow's name, and what else its decoder is told."""
    mode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return mode, rest


def _narrowed(deep: NDArray[Any], bits: int | None) -> Pixels:
    """(H, W, bands) -> (H, W, 3). Undecodable for values that 16 bits do not hold."""
    if deep.min() < 0 or deep.max() >= 2**16:
        raise Undecodable(f"values from {deep.min()} to {deep.max()}; expected 0 to 65535: save it with 8 or 16 bits")
    most = 2 ** (bits or 16) - 1
    colours = np.minimum(deep[..., : 3 if deep.shape[2] > 2 else 1], most).astype(np.int64)
    return np.broadcast_to((2 * 255 * colours + most) // (2 * most), (*deep.shape[:2], 3)).astype(np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":  # Pillow's own conversion would make black of values up to 1
        raise Undecodable("values are floating-point numbers; expected integers: save it with 8 or 16 bits")
    if "transparency" in image.info:  # straight to RGB, Pillow warns
        image = image.convert("RGBA")
    return image.convert("RGB")
