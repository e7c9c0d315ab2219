"""Crops of an encoded image: one decode, no larger than needed, and a resize with antialiasing for each crop.

A box of whole pixels is resized by torch, as torchvision does. A box with fractional edges, as in a JPEG decoded at a
fraction of its size, is resized by Pillow: as exact, but five times slower.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from selfsup.modality import Data
from selfsup.pipelines.modalities.pixels.decode import RGB, How, Values, decode_scaled

Resample = Literal["bilinear", "bicubic"]

EIGHTHS = (1, 2, 8)  # scales of a JPEG's decode: at 3/8 and 4/8 Pillow's resize costs more than the decode saves
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def single_threaded() -> None:
    """Make torch use one thread when called from the current thread, whatever the setting of others.

    A thread copies the number of the process at its first use of it, hence the call of the getter.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)


def crops(
    data: Data,
    boxes: NDArray[np.float64],
    sizes: Sequence[int],
    resample: Sequence[Resample],
    flips: Sequence[bool] | None = None,
    how: How = RGB,
) -> list[Values]:
    """(k, 4) boxes of top, left, height, width in pixels of the whole image -> k arrays (size, size, C)

    flips: whether each is mirrored, left to right. how: see `decode`. Raises DecodeError for damaged data.
    """
    sides = (min(height, width) for _, _, height, width in boxes.tolist())
    eighths = 8 * max(size / side for size, side in zip(sizes, sides, strict=True))
    image, scale = decode_scaled(data, eighths, EIGHTHS, how)
    scaled = boxes * scale
    is_whole = (scaled % 1 == 0).all(axis=1)
    settings = zip(is_whole.tolist(), scaled.tolist(), sizes, resample, flips or [False] * len(scaled), strict=True)
    return [_crop(image, *setting) for setting in settings]


def _crop(image: Values, is_whole: bool, box: Sequence[float], size: int, resample: Resample, flip: bool) -> Values:
    crop = (_resize_by_torch if is_whole else _resize_by_pillow)(image, box, size, resample)
    pixels: Values = (crop.flip(3) if flip else crop).numpy()[0].transpose(1, 2, 0)
    return pixels


def _resize_by_torch(image: Values, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, C, size, size), channels last"""
    top, left, height, width = map(int, box)
    part = image[top : top + height, left : left + width].copy()  # torch's fast resize needs it contiguous
    resized = interpolate(_batch_of_one(part), (size, size), mode=resample, antialias=True)
    return resized if image.dtype == np.uint8 else resized.clamp_(0, 1)  # which integers are by themselves


def _resize_by_pillow(image: Values, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, C, size, size), channels last"""
    top, left, height, width = box
    within = max(0.0, left), max(0.0, top), min(image.shape[1], left + width), min(image.shape[0], top + height)

    def resized(pixels: Values) -> Values:
        return np.array(Image.fromarray(pixels).resize((size, size), FILTERS[resample], box=within))

    if image.shape[2] == 3 and image.dtype == np.uint8:
        return _batch_of_one(resized(image))
    bands = [resized(np.ascontiguousarray(band)) for band in np.moveaxis(image, 2, 0)]  # four would be taken for RGBA
    return _batch_of_one(np.stack(bands, axis=2)).clamp_(0, 255 if image.dtype == np.uint8 else 1)


def _batch_of_one(image: Values) -> Tensor:
    """(H, W, C) -> (1, C, H, W), channels last

    NumPy permutes the axes: torch releases the interpreter's lock for each view, which threads then wait for.
    """
    return torch.from_numpy(image.reshape(1, *image.shape).transpose(0, 3, 1, 2))
