"""Decoding of images, at a fraction of the size where that is enough.

libjpeg-turbo decodes JPEGs, and can do so at a fraction of the size; Pillow decodes all other formats and the few JPEGs
that libjpeg-turbo does not convert. Values of other channels than RGB's, and of 16 bits, are read by `bands`.
Orientation tags are ignored, as torchvision does.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from selfsup.errors import DataError
from selfsup.modality import Data, DecodeError
from selfsup.pipelines.modalities.pixels import bands, tiffs
from selfsup.pipelines.modalities.pixels.levels import (
    Pixels,
    as_colors,
    divide_by_alpha,
    in_16_bits,
    rescale,
    rgb,
    to_8_bits,
)

Values = NDArray[Any]  # (H, W, C): uint8, or float32 in [0, 1]

SENSOR_BITS = 14  # most cameras and scanners have no more
MAX_PIXELS = 178_956_970  # above it, Pillow too assumes a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none that starts other programs
CHROMA_SCALES = {"422": 4, "440": 4, "411": 8}  # factor on the decoded size that makes them as exact as 4:2:0
IHDR_DEPTH = 24  # offset of the bit depth in a PNG
SWAPPED_MODES = {"LA;16B": "RGBA"} | {
    f"{colors};16{order}": f"{colors};16{other}"
    for colors in ("RGB", "RGBA", "RGBX", "CMYK")
    for order, other in ("BL", "LB", "NB")  # N: native, little-endian
}  # Pillow's raw modes of 16 bits -> those of the other byte order
UNMULTIPLIED_MODES = {f"RGBa;16{order}": f"RGBA;16{order}" for order in "BLN"}  # keep Pillow from dividing by alpha
SWAPPED_MODES |= {multiplied: SWAPPED_MODES[plain] for multiplied, plain in UNMULTIPLIED_MODES.items()}
COLORSPACES = {1: "GRAY", 3: "RGB"}  # of libjpeg-turbo, by the number of channels
EIGHTHS = (1, 2, 3, 4, 8)  # 5/8 to 7/8 take longer to decode than the whole image (3.8 against 2.6 ms at 640x427)


class How(NamedTuple):
    """Settings of decoding.

    channels: 3 for RGB, 1 for gray, or as many as the image has. bits: number in use of 16, so that 2^bits - 1 is
    white; None: all. depth: 8 for uint8, 16 for float32 in [0, 1].
    """

    channels: int = 3
    bits: int | None = None
    depth: int = 8

    @property
    def is_rgb(self) -> bool:
        """Return whether images become RGB of 8 bits."""
        return (self.channels, self.depth) == (3, 8)


RGB = How()


def backend() -> str:
    """Return the names and versions of the decoders, for the record of a run."""
    return f"simplejpeg {version('simplejpeg')}, Pillow {version('pillow')}"


def dimensions(data: Data, how: How = RGB) -> tuple[int, int]:
    """Return (height, width) from the header. Raises DecodeError for a broken one or more than 178 megapixels."""
    height, width, _ = _header(data, how)
    return height, width


def decode(data: Data, *, min_height: int, min_width: int, how: How = RGB) -> Values:
    """Return an image as (H, W, C).

    A JPEG is decoded at the smallest fast scale of at least the given size; nothing is enlarged. To RGB, gray, CMYK,
    palette and 16-bit images are converted, alpha is dropped. Raises DecodeError for corrupt or truncated data.
    """
    height, width, chroma = _header(data, how)
    if not chroma:
        return _decode_whole(data, how)
    least = chroma * min_height, chroma * min_width
    eighths = next((n for n in EIGHTHS if _scaled(height, n) >= least[0] and _scaled(width, n) >= least[1]), 8)
    return _decode_by_turbo(data, height, width, eighths, how)[0]


def decode_scaled(
    data: Data, min_eighths: float, choices: Sequence[int] = EIGHTHS, how: How = RGB
) -> tuple[Values, float]:
    """Return an image as (H, W, C), and its scale: for a JPEG, the first of `choices` of at least so many eighths.

    Any other image has scale 1. how and DecodeError as for `decode`.
    """
    height, width, chroma = _header(data, how)
    if not chroma:
        return _decode_whole(data, how), 1.0
    return _decode_by_turbo(data, height, width, next(n for n in choices if n >= chroma * min_eighths or n == 8), how)


def _scaled(length: int, eighths: int) -> int:
    """Return a length after scaling; libjpeg-turbo rounds up."""
    return -(-length * eighths // 8)


def _header(data: Data, how: How) -> tuple[int, int, int]:
    """Return height, width, and the factor on the size at which to decode it; 0: to be decoded whole.

    libjpeg-turbo scales the chroma of 4:2:0 by less than luma, so that both come out in full. Where chroma is halved on
    one side only it cannot, and enlarges smaller chroma with a blur.
    """
    import simplejpeg  # absent where blank images are all that is needed

    try:
        height, width, colors, sampling = simplejpeg.decode_jpeg_header(data)
        chroma = 0 if colors in ("CMYK", "YCCK") or how.channels not in COLORSPACES else CHROMA_SCALES.get(sampling, 1)
    except (ValueError, KeyError):  # the latter for 4:4:1
        (height, width), chroma = _size(data, how), 0
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{width}x{height} pixels are more than {MAX_PIXELS}: taken for a decompression bomb")
    return height, width, chroma


def _size(data: Data, how: How) -> tuple[int, int]:
    """Return (height, width) of an image that is no common JPEG."""
    if not how.is_rgb and (size := bands.size(data)):
        return size
    with opened(data) as image:
        return image.height, image.width


def _decode_by_turbo(data: Data, height: int, width: int, eighths: int, how: How) -> tuple[Values, float]:
    """Return an image as (H, W, C), and its scale: 1 for a JPEG that only Pillow decodes."""
    import simplejpeg

    least = _scaled(height, eighths), _scaled(width, eighths)
    try:
        image: Pixels = simplejpeg.decode_jpeg(
            data, COLORSPACES[how.channels], min_height=least[0], min_width=least[1], strict=True
        )
    except ValueError as error:
        if "premature end" in str(error).lower():  # of the file, or of a scan
            raise DecodeError(f"a truncated JPEG: {error}") from error
        return _decode_whole(data, how), 1.0  # strict mode also rejects harmless oddities; Pillow finds truncation
    return image if how.depth == 8 else image.astype(np.float32) / 255, eighths / 8


def _decode_whole(data: Data, how: How) -> Values:
    if how.is_rgb:
        return _decode_by_pillow(data, how.bits)
    values, white = bands.read(data) or _bands_by_pillow(data)
    chosen = bands.channels(values, how.channels)
    white = min(white, 2 ** (how.bits or 16) - 1)
    chosen = np.minimum(chosen, white)
    if how.depth == 16:
        shares: Values = (chosen / white).astype(np.float32)
        return shares
    return rescale(chosen.astype(np.int64), np.int64(white))


def check_bits(bits: int | None, used: Sequence[int]) -> None:
    """Raise DataError where images of 16 bits use no more than a sensor's 14, and `bits` does not say which is white.

    They may be dark, or have fewer bits. used: by each image, see `depth`.
    """
    most = max(used, default=0)
    if bits is None and 0 < most <= SENSOR_BITS:
        options = f"--bits {max(most, 8)} if that is white, or --bits 16 if the images are dark"
        raise DataError(f"images of 16 bits hold no value of more than {most} bits; add {options}")


def _bands_by_pillow(data: Data) -> tuple[NDArray[Any], int]:
    """-> (H, W, bands) unsigned; the value that is white"""
    with opened(data) as image, decode_errors(image):
        if image.mode.startswith("I"):
            wide = in_16_bits(np.asarray(image)[..., None])
            return 2**16 - 1 - wide if tiffs.is_inverted(image) else wide, 2**16 - 1
        if _has_16_bits(image, data) and image.mode != "CMYK" and not _is_multiplied(image):
            return _read_16_bits(data), 2**16 - 1
        plain = image if image.mode in ("L", "LA", "RGBA") and "transparency" not in image.info else rgb(image)
        pixels = np.asarray(plain)
        return pixels.reshape(*pixels.shape[:2], -1), 255


def depth(data: Data, how: How = RGB) -> int:
    """Return the bits that the values of an image of more than 8 bits use; 0 for any other. Raises DecodeError."""
    if data[:2] == b"\xff\xd8":
        return 0
    if not how.is_rgb and (stored := bands.read(data)):
        values, white = stored
        return int(values.max()).bit_length() if white > 255 else 0
    with opened(data) as image, decode_errors(image):
        if image.mode.startswith("I"):
            return int(np.asarray(image).max()).bit_length()
        if not _has_16_bits(image, data) or _is_multiplied(image):  # the quotient does not depend on unused bits
            return 0
        high = image if image.mode == "CMYK" else image.convert("RGB")
        return 8 + int(np.asarray(high).max()).bit_length()


def _decode_by_pillow(data: Data, bits: int | None = None) -> Pixels:
    with opened(data) as image, decode_errors(image):
        if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip at 255
            gray = as_colors(to_8_bits(np.asarray(image)[..., None], bits))
            return 255 - gray if tiffs.is_inverted(image) else gray
        if _is_multiplied(image):
            return divide_by_alpha(_read_16_bits(data))
        if _has_16_bits(image, data) and bits:  # Pillow keeps the high bytes alone
            narrow = to_8_bits(_read_16_bits(data), bits)
            return as_colors(narrow) if image.mode != "CMYK" else np.asarray(rgb(Image.fromarray(narrow, "CMYK")))
        return np.asarray(rgb(image))


@contextmanager
def decode_errors(image: Image.Image) -> Iterator[None]:
    """Turn any exception inside the block into a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on corrupt bytes
        raise DecodeError(f"a damaged or truncated {image.format}: {error}") from error


def opened(data: Data) -> ImageFile:
    """Return an image whose header is read. Raises DecodeError for what is none in a format that is read."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as above
        problem = f"not an image in a known format ({', '.join(FORMATS)}): {error}"
        raise DecodeError(tiffs.unreadable(bytes(data)) or problem) from error
    if isinstance(image, TiffImageFile) and (refusal := tiffs.refusal(image)):
        raise DecodeError(refusal)
    return image


def _has_16_bits(image: Image.Image, data: Data) -> bool:
    """Return whether an image has colors, or gray and alpha, of 16 bits each."""
    if image.format == "PNG":
        return data[IHDR_DEPTH] == 16
    if not isinstance(image, TiffImageFile) or max(image.tag_v2.get(BITSPERSAMPLE, (8,))) != 16:
        return False
    return {_raw_mode(tile)[0] for tile in image.tile} <= SWAPPED_MODES.keys()


def _read_16_bits(data: Data) -> NDArray[np.int64]:
    """-> (H, W, bands) of 16 bits

    Pillow keeps the high byte of each value; with the other byte order set, it keeps the low one.
    """
    (high, mode), (low, _) = _read(data, UNMULTIPLIED_MODES), _read(data, SWAPPED_MODES)
    is_gray = mode == "LA;16B"  # read as RGBA, which keeps all four bytes
    values: NDArray[np.int64] = 256 * high.astype(np.int64) + (low[..., 1:2] if is_gray else low)
    return values


def _read(data: Data, modes: Mapping[str, str]) -> tuple[NDArray[Any], str]:
    """-> (H, W, bands), read with another raw mode of Pillow; and the original raw mode"""
    with opened(data) as image:
        tiles = [(tile, *_raw_mode(tile)) for tile in image.tile]
        image.tile = [tile._replace(args=(modes.get(mode, mode), *rest)) for tile, mode, rest in tiles]
        return np.asarray(image), tiles[0][1]


def _raw_mode(tile: Any) -> tuple[str, Sequence[Any]]:
    """Return Pillow's raw mode of a tile, and the other arguments of its decoder."""
    mode, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return mode, rest


def _is_multiplied(image: Image.Image) -> bool:
    """Return whether the colors of an image of 16 bits are multiplied by alpha."""
    return isinstance(image, TiffImageFile) and any(_raw_mode(tile)[0] in UNMULTIPLIED_MODES for tile in image.tile)
