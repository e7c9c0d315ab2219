"""Encoding of images as members of shards."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsup.modality import DecodeError
from selfsup.pipelines.modalities.pixels.decode import (
    RGB,
    How,
    Values,
    check_bits,
    decode,
    decode_errors,
    depth,
    dimensions,
    opened,
)
from selfsup.pipelines.modalities.pixels.levels import Pixels

DEEP = (".png", ".tif", ".tiff", ".pgm")  # suffixes of images that may have more than 8 bits
LOSSLESS = (".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
SMALL = 64  # pixels of the shorter side, below which the halved color of JPEGs shows
INSPECTED = 256  # files


@dataclass(frozen=True)
class ImageCoding:
    """The coding of images as members of shards.

    resize: maximum of the shorter side in pixels; nothing is enlarged. quality: of JPEGs that are encoded anew. keep:
    files stay as they are, unless they are resized. background: a color that transparent images are laid on, as Pillow
    names it. how: settings of `decode`. is_known: whether `how` says which value is white. reading: of the members.
    """

    reading: Any

    resize: int | None = None
    quality: int = 92
    keep: bool = False
    background: str | None = None
    how: How = RGB
    is_known: bool = False

    @property
    def settings(self) -> str:
        """Return all that the bytes depend on but the file, as earlier versions did."""
        plain = f"Coding(resize={self.resize}, quality={self.quality})"
        plain += f", bits={self.how.bits}" if self.how.bits else ""
        others = self.how._replace(bits=None)
        plain += f", {others}" if others != RGB else ""
        return plain + (", keep" if self.keep else "") + (f", on {self.background}" if self.background else "")

    def inspect(self, paths: Sequence[Path]) -> list[str]:
        """Return advice on small images. Raises DataError as `check_bits`, over some files of more than 8 bits."""
        deep = [path for path in paths if path.suffix.lower() in DEEP]
        if not self.is_known:
            check_bits(None, [_depth(path, self.how) for path in _some(deep)])
        lossless = [path for path in paths if path.suffix.lower() in LOSSLESS]
        small = sum(0 < _short(path) < SMALL for path in _some(lossless)) if self.how.is_rgb and not self.keep else 0
        advice = f"images below {SMALL} pixels lose detail as JPEGs: --keep stores files as they are"
        return [advice] if small > len(_some(lossless)) / 2 else []

    def encode(self, path: Path) -> tuple[str, bytes]:
        """Return the suffix and bytes of an image file as a member of a shard. Raises DecodeError.

        RGB of 8 bits becomes JPEG, unchanged where it is one of that size. All other values stay as they are: the file
        is unchanged, or a TIFF where it gets smaller.
        """
        data = path.read_bytes()
        if self.how.is_rgb:
            return self._rgb(data, path.suffix[1:].lower())
        height, width = dimensions(data, self.how)
        short, values = min(height, width), decode(data, min_height=1 << 16, min_width=1 << 16, how=self.how)
        if not self.resize or short <= self.resize:
            return path.suffix[1:].lower(), data
        return "tif", tiff(shrunk(values, self.resize), white=2 ** (self.how.bits or 16) - 1)

    def _rgb(self, data: bytes, suffix: str) -> tuple[str, bytes]:
        laid = over(data, self.background) if self.background else data
        if not self.keep or (self.resize and min(dimensions(laid)) > self.resize):
            return "jpg", self._jpeg(laid)
        decode(laid, min_height=1, min_width=1)  # the cheapest proof that it is not truncated
        return suffix if laid is data else "png", laid

    def _jpeg(self, data: bytes) -> bytes:
        height, width = dimensions(data)
        short = min(height, width)
        side = min(short, self.resize or short)
        if data.startswith(b"\xff\xd8") and side == short:
            decode(data, min_height=1, min_width=1)  # as above
            return data
        least = 2 * side  # so that the last halving is antialiased
        image = decode(data, min_height=least, min_width=least, how=self.how)
        size = max(1, round(width * side / short)), max(1, round(height * side / short))
        return jpeg(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), quality=self.quality)


def over(data: bytes, background: str) -> bytes:
    """Return a transparent image as a PNG of it on a color; any other as it is. Raises DecodeError."""
    with opened(data) as image, decode_errors(image):
        if not image.has_transparency_data:
            return data
        laid = Image.new("RGBA", image.size, background)
        laid.alpha_composite(image.convert("RGBA"))
    sink = io.BytesIO()
    laid.convert("RGB").save(sink, "png")
    return sink.getvalue()


def _some(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: max(1, len(paths) // INSPECTED)]


def _short(path: Path) -> int:
    try:
        return min(dimensions(path.read_bytes()))
    except DecodeError:
        return 0


def _depth(path: Path, how: How) -> int:
    try:
        return depth(path.read_bytes(), how)
    except DecodeError:
        return 0


def jpeg(image: Pixels, *, quality: int) -> bytes:
    """(H, W, 3) -> JPEG"""
    import simplejpeg

    pixels = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420"))


def shrunk(values: Values, short: int) -> Values:
    """(H, W, C) -> (h, w, C), whose shorter side is `short`"""
    height, width = (max(1, round(side * short / min(values.shape[:2]))) for side in values.shape[:2])
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(values, 2, 0)]
    resized = np.stack([np.asarray(band.resize((width, height), Image.Resampling.BICUBIC)) for band in bands], axis=2)
    return resized if values.dtype == np.uint8 else resized.clip(0, 1)


def tiff(values: Values, *, white: int) -> bytes:
    """(H, W, C), uint8 or float in [0, 1] -> TIFF of 8 bits, or of 16 where `white` is 1, without loss of these"""
    import tifffile  # takes a while, and most images are no TIFFs

    sink = io.BytesIO()
    whole = values if values.dtype == np.uint8 else np.round(values * white).astype(np.uint16)
    layout: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"} if whole.shape[2] > 1 else {}
    tifffile.imwrite(sink, whole if whole.shape[2] > 1 else whole[..., 0], metadata=None, **layout)
    return sink.getvalue()
