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

from selfsup.pipelines.modalities.decode import Data, Pixels, decode_scaled

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
    *,
    bits: int | None = None,
) -> list[Pixels]:
    """(k, 4) boxes of top, left, height, width in pixels of the whole image -> k arrays (size, size, 3)

    flips: whether each is mirrored, left to right. bits: see `decode`. Raises DecodeError for damaged data.
    """
    sides = (min(height, width) for _, _, height, width in boxes.tolist())
    eighths = 8 * max(size / side for size, side in zip(sizes, sides, strict=True))
    image, scale = decode_scaled(data, eighths, EIGHTHS, bits=bits)
    scaled = boxes * scale
    is_whole = (scaled % 1 == 0).all(axis=1)
    settings = zip(is_whole.tolist(), scaled.tolist(), sizes, resample, flips or [False] * len(scaled), strict=True)
    return [_crop(image, *setting) for setting in settings]


def _crop(image: Pixels, is_whole: bool, box: Sequence[float], size: int, resample: Resample, flip: bool) -> Pixels:
    crop = (_resize_by_torch if is_whole else _resize_by_pillow)(image, box, size, resample)
    pixels: Pixels = (crop.flip(3) if flip else crop).numpy()[0].transpose(1, 2, 0)
    return pixels


def _resize_by_torch(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = map(int, box)
    part = image[top : top + height, left : left + width].copy()  # torch's fast resize needs it contiguous
    return interpolate(_batch_of_one(part), (size, size), mode=resample, antialias=True)


def _resize_by_pillow(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = box
    within = max(0.0, left), max(0.0, top), min(image.shape[1], left + width), min(image.shape[0], top + height)
    resized = Image.fromarray(image).resize((size, size), FILTERS[resample], box=within)
    return _batch_of_one(np.array(resized))


def _batch_of_one(image: Pixels) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W), channels last

    NumPy permutes the axes: torch releases the interpreter's lock for each view, which threads then wait for.
    """
    return torch.from_numpy(image.reshape(1, *image.shape).transpose(0, 3, 1, 2))
