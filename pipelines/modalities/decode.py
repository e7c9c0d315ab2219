"""Bytes of an image -> its pixels, at a fraction of its size where that is enough.

JPEG goes through libjpeg-turbo, which can decode at a fraction of the size; Pillow takes every other format and the few
JPEGs that libjpeg-turbo does not turn into RGB. Orientation tags are ignored, as torchvision does.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
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
from selfsup.pipelines.modalities import tiffs

Data = bytes | memoryview  # of an image in its format
Pixels = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a file for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none that starts other programs
CHROMA = {"422": 4, "440": 4, "411": 8}  # how much larger than asked they are decoded, to be as exact as 4:2:0
IHDR_DEPTH = 24  # where a PNG tells the bits of each of its channels
OTHER_ORDER = {"LA;16B": "RGBA"} | {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX", "CMYK")
    for order, other in ("BL", "LB", "NB")  # N: as this machine's, L
}  # of the bytes of colours of 16 bits, by Pillow's names
STRAIGHT = {f"RGBa;16{order}": f"RGBA;16{order}" for order in "BLN"}  # or Pillow divides the high bytes by alpha's
OTHER_ORDER |= {multiplied: OTHER_ORDER[plain] for multiplied, plain in STRAIGHT.items()}
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
        if not _is_wide(image, data) or _is_multiplied(image):  # a quotient takes no notice of unused bits
            return 0
        high = image if image.mode == "CMYK" else image.convert("RGB")
        return 8 + int(np.asarray(high).max()).bit_length()


def _pillow(data: Data, bits: int | None = None) -> Pixels:
    with _opened(data) as image, _whole(image):
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
            grey = _colours(_narrowed(np.asarray(image)[..., None], bits))
            return 255 - grey if tiffs.is_inverted(image) else grey
        if _is_multiplied(image):
            return _divided(_wide(data))
        if _is_wide(image, data) and bits:  # of which Pillow keeps the high bytes alone
            narrow = _narrowed(_wide(data), bits)
            return _colours(narrow) if image.mode != "CMYK" else np.asarray(_rgb(Image.fromarray(narrow, "CMYK")))
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
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as above
        known = f"no image in a known format ({', '.join(FORMATS)}): {error}"
        raise Undecodable(tiffs.unopened(bytes(data)) or known) from error
    if isinstance(image, TiffImageFile) and (refusal := tiffs.refusal(image)):
        raise Undecodable(refusal)
    return image


def _is_wide(image: Image.Image, data: Data) -> bool:
    """Whether it has colours, or grey and alpha, of 16 bits each."""
    if image.format == "PNG":
        return data[IHDR_DEPTH] == 16
    if not isinstance(image, TiffImageFile) or max(image.tag_v2.get(BITSPERSAMPLE, (8,))) != 16:
        return False
    return {_how(tile)[0] for tile in image.tile} <= OTHER_ORDER.keys()


def _wide(data: Data) -> NDArray[np.int64]:
    """-> (H, W, bands) of 16 bits

    Pillow keeps the high bytes; told that the bytes stand the other way round, it keeps the low ones.
    """
    (high, name), (low, _) = _read(data, STRAIGHT), _read(data, OTHER_ORDER)
    grey = name == "LA;16B"  # of which all four bytes are kept
    wide: NDArray[np.int64] = 256 * high.astype(np.int64) + (low[..., 1:2] if grey else low)
    return wide


def _read(data: Data, order: Mapping[str, str]) -> tuple[NDArray[Any], str]:
    """-> (H, W, bands), the bytes taken to stand by another of Pillow's names, and the name they have."""
    with _opened(data) as image:
        tiles = [(tile, *_how(tile)) for tile in image.tile]
        image.tile = [tile._replace(args=(order.get(mode, mode), *rest)) for tile, mode, rest in tiles]
        return np.asarray(image), tiles[0][1]


def _how(tile: Any) -> tuple[str, Sequence[Any]]:
    """How the bytes of a part of an image stand, by Pillow's name, and what else its decoder is told."""
    mode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return mode, rest


def _is_multiplied(image: Image.Image) -> bool:
    """Whether its colours, of 16 bits, are multiplied by alpha."""
    return isinstance(image, TiffImageFile) and any(_how(tile)[0] in STRAIGHT for tile in image.tile)


def _divided(deep: NDArray[np.int64]) -> Pixels:
    """(H, W, 4), multiplied by alpha -> (H, W, 3)"""
    alpha = np.maximum(deep[..., 3:], 1)
    return _rounded(np.minimum(deep[..., :3], alpha), alpha)


def _narrowed(deep: NDArray[Any], bits: int | None) -> Pixels:
    """(H, W, bands) -> (H, W, bands) of 8 bits. Undecodable for values that 16 bits do not hold."""
    if deep.min() < 0 or deep.max() >= 2**16:
        raise Undecodable(f"values from {deep.min()} to {deep.max()}; expected 0 to 65535: save it with 8 or 16 bits")
    most = 2 ** (bits or 16) - 1
    return _rounded(np.minimum(deep, most).astype(np.int64), np.int64(most))


def _rounded(values: NDArray[np.int64], most: NDArray[np.int64] | np.int64) -> Pixels:
    """255 for the most, in proportion for the others."""
    return ((2 * 255 * values + most) // (2 * most)).astype(np.uint8)


def _colours(narrow: Pixels) -> Pixels:
    """(H, W, 1 to 4), the last of two or four alpha -> (H, W, 3)"""
    colours = narrow[..., : 3 if narrow.shape[2] > 2 else 1]
    return np.ascontiguousarray(np.broadcast_to(colours, (*narrow.shape[:2], 3)))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":  # Pillow's own conversion would make black of values up to 1
        raise Undecodable("values are floating-point numbers; expected integers: save it with 8 or 16 bits")
    if "transparency" in image.info:  # straight to RGB, Pillow warns
        image = image.convert("RGBA")
    if image.mode == "La":  # which Pillow turns into nothing else
        image = image.convert("LA")
    return image.convert("RGB")
