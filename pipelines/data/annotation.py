"""Maps of an image that lie beside it in its shard, under the same key: reading and resizing.

.seg.png    the class of each pixel, from 0, of 8 or 16 bits; the largest value, 255 or 65535: none
.inst.png   the object that each pixel belongs to, from 1; 0: none
.depth.png  the depth of each pixel along the camera's axis, of 16 bits, in millimeters; 0: unknown
.disparity.png  how many pixels farther to the left each is in a second view, of 16 bits, times 256, as in KITTI; 0:
            unknown or hidden there
.right.jpg  that view, no map: of a camera to the right of the first, with the same axes
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.errors import DataError
from selfsup.evaluator import MAPS, METRIC, Map
from selfsup.modality import Data

RIGHT = "right"
SUFFIXES = {name: f"{name}.png" for name in MAPS} | {RIGHT: "right.jpg"}  # of members
DISPARITY = 256  # stored for each pixel


def read(name: str, data: Data, side: int, key: str, box: NDArray[np.floating] | None = None) -> Map:
    """Return a map as its evaluators read it, of the whole image, squashed to `side` pixels a side.

    Of resizing, the nearest pixel counts. key: of its sample. box: the part of the image that is read instead, as that
    of a View. Raises DataError for a map that cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            values = np.asarray(image)  # of a palette the numbers
    except Exception as error:  # as Pillow's decoders raise many types on corrupt bytes
        raise DataError(f"{key}.{SUFFIXES[name]}: not a PNG that can be read: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise DataError(f"{key}.{SUFFIXES[name]}: expected one number a pixel, of 8 or 16 bits, got {image.mode}")
    (top, height), (left, width) = _part(values.shape, box)
    if name == "disparity":
        values = values * (side / width)
    part = values[nearest(top, height, side)][:, nearest(left, width, side)]
    return _values(name, part[:, ::-1] if box is not None and box[4] else part)


def absent(name: str) -> int:
    """Return the value of a map's pixels of which nothing is known."""
    return -1 if name == "seg" else 0


def colors(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(..., H, W) -> (..., H, W, 3): of classes or objects those of PASCAL VOC; white where there is none"""
    number = values[..., None].astype(np.int64)
    bits = [(number >> (3 * bit + np.arange(3)) & 1) << (7 - bit) for bit in range(7)]
    mixed = np.bitwise_or.reduce(bits).astype(np.uint8)
    return np.where(number < 0, np.uint8(255), mixed)


def dtype(name: str) -> type[np.generic]:
    """Return the type of a map's values as it is read."""
    return np.float32 if name in METRIC else np.int32


def _part(shape: tuple[int, ...], box: NDArray[np.floating] | None) -> Sequence[tuple[float, float]]:
    """Return start and extent along rows and columns of a map, which may have another size than its image."""
    if box is None:
        return [(0.0, length) for length in shape]
    scale = np.array(shape) / box[5:7]
    return list(zip(box[:2] * scale, box[2:4] * scale, strict=True))


def nearest(start: float, extent: float, side: int) -> NDArray[np.int64]:
    """-> (side,): the pixel in whose middle, or next to it, lies that of each of `side` new ones"""
    return (start + (np.arange(side) + 0.5) * extent / side).astype(np.int64)


def _values(name: str, stored: NDArray[np.integer]) -> Map:
    if name in METRIC:
        return (stored / (1000 if name == "depth" else DISPARITY)).astype(np.float32)
    values = stored.astype(np.int32)
    if name == "seg":
        values[values == (255 if stored.dtype == np.uint8 else 65535)] = -1
    return values
