"""Bytes of an image -> uint8 crops of it, decoding no more pixels than the crops need.

JPEG goes through libjpeg-turbo, which can decode at a fraction of the size; Pillow takes every other format and the few
JPEGs that libjpeg-turbo does not turn into RGB. Orientation tags are ignored, as torchvision does.
"""

import io
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from selfsup.errors import DataError

Pixels = NDArray[np.uint8]
Resample = Literal["bilinear", "bicubic"]

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a file for a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # what images are mislabelled as; none that starts other programs
EIGHTHS = (1, 2, 3, 4, 8)  # 5/8 to 7/8 take longer to decode than the whole image (3.8 against 2.6 ms at 640x427)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Undecodable(DataError, ValueError):  # noqa: N818 (what it is, not what went wrong)
    """These bytes are no whole image."""


def backend() -> str:
    """The decoder in use, for the record of a run."""
    return f"simplejpeg {version('simplejpeg')}, Pillow {version('pillow')}"


def dimensions(data: bytes) -> tuple[int, int]:
    """(height, width) from the header alone. Undecodable for a broken header or more than 178 megapixels."""
    height, width, _ = _header(data)
    return height, width


def decode(data: bytes, *, min_height: int, min_width: int) -> Pixels:
    """-> (H, W, 3) RGB. A JPEG comes at the smallest quick scale that is no smaller than asked; never enlarged.

    Grey, CMYK, palette and 16-bit images are converted, alpha is dropped. Undecodable for corrupt or truncated data.
    """
    height, width, quick = _header(data)
    eighths = next((n for n in EIGHTHS if _scaled(height, n) >= min_height and _scaled(width, n) >= min_width), 8)
    return _turbo(data, height, width, eighths) if quick else _pillow(data)


def resize_box(image: Pixels, box: Sequence[float], *, size: int, resample: Resample) -> Pixels:
    """(H, W, 3), (top, left, height, width) in pixels of it -> (size, size, 3), antialiased."""
    return _resized(Image.fromarray(image), box, size, resample)


def crops(data: bytes, boxes: NDArray[np.float64], sizes: Sequence[int], resample: Sequence[Resample]) -> list[Pixels]:
    """k boxes (k, 4) of top, left, height, width in pixels of the whole image -> k arrays (size, size, 3).

    One decode serves all, at the smallest quick scale at which every box still covers its size.
    """
    assert len(boxes) == len(sizes) == len(resample)
    height, width, quick = _header(data)
    if not quick:
        image, eighths = _pillow(data), 8
    else:
        needed = 8 * max(size / min(box[2:]) for box, size in zip(boxes, sizes, strict=True))
        eighths = next((n for n in EIGHTHS if n >= needed), 8)
        image = _turbo(data, height, width, eighths)
    whole, scaled = Image.fromarray(image), np.asarray(boxes) * (eighths / 8)
    return [_resized(whole, box, size, how) for box, size, how in zip(scaled, sizes, resample, strict=True)]


def _resized(image: Image.Image, box: Sequence[float], size: int, resample: Resample) -> Pixels:
    top, left, height, width = (float(value) for value in box)
    inside = (max(0.0, left), max(0.0, top), min(image.width, left + width), min(image.height, top + height))
    return np.asarray(image.resize((size, size), FILTERS[resample], box=inside))


def _scaled(length: int, eighths: int) -> int:
    """libjpeg-turbo rounds up."""
    return -(-length * eighths // 8)


def _header(data: bytes) -> tuple[int, int, bool]:
    """Height, width, and whether libjpeg-turbo makes RGB of it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        quick = colours not in ("CMYK", "YCCK")
    except ValueError:
        with _opened(data) as image:
            (width, height), quick = image.size, False
    if height * width > MAX_PIXELS:
        raise Undecodable(f"{width}x{height} pixels are more than {MAX_PIXELS}: taken for a decompression bomb")
    return height, width, quick


def _turbo(data: bytes, height: int, width: int, eighths: int) -> Pixels:
    least = _scaled(height, eighths), _scaled(width, eighths)
    try:
        image: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1], strict=True)
    except ValueError as error:
        raise Undecodable(f"not a whole JPEG: {error}") from error
    return image


def _pillow(data: bytes) -> Pixels:
    with _opened(data) as image:
        try:
            return np.asarray(_rgb(image))
        except Exception as error:  # Pillow's decoders let many kinds escape on hostile bytes
            raise Undecodable(f"not a whole {image.format}: {error}") from error


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as above
        raise Undecodable(f"no image in a known format ({', '.join(FORMATS)}): {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        deep = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # straight to RGB, Pillow warns
        image = image.convert("RGBA")
    return image.convert("RGB")
