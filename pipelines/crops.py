"""Bytes of an image -> its crops, by one decode that is no larger than they need, resized with antialiasing.

A whole box is cut out and resized by torch: what torchvision does. A box that begins between two pixels, as in a JPEG
decoded at a fraction of its size, is resized by Pillow: as exact, but five times slower.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from selfsup.pipelines.decode import Data, Pixels, scaled

Resample = Literal["bilinear", "bicubic"]

EIGHTHS = (1, 2, 8)  # of a JPEG's size: at 3/8 and 4/8 Pillow's resize costs more than the decode saves
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def single_threaded() -> None:
    """Call it in a thread that makes crops: torch then works in that thread alone, whatever number others have.

    A thread takes over the number of the process when it first asks for it, and keeps it.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)


def crops(
    data: Data,
    boxes: NDArray[np.float64],
    sizes: Sequence[int],
    resample: Sequence[Resample],
    flips: Sequence[bool] | None = None,
) -> list[Pixels]:
    """k boxes (k, 4) of top, left, height, width in pixels of the whole image -> k arrays (size, size, 3).

    flips: which of them are mirrored, left to right. Undecodable for corrupt or truncated data.
    """
    sides = (min(height, width) for _, _, height, width in boxes.tolist())
    needed = 8 * max(size / side for size, side in zip(sizes, sides, strict=True))
    image, scale = scaled(data, next(n for n in EIGHTHS if n >= needed or n == 8))
    wanted = zip((boxes * scale).tolist(), sizes, resample, flips or [False] * len(boxes), strict=True)
    return [_crop(image, *each) for each in wanted]


def _crop(image: Pixels, box: Sequence[float], size: int, resample: Resample, flip: bool) -> Pixels:
    resize = _by_torch if all(value.is_integer() for value in box) else _by_pillow
    made = resize(image, box, size, resample)
    return (made.flip(3) if flip else made)[0].permute(1, 2, 0).numpy()


def _by_torch(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = map(int, box)
    part = image[top : top + height, left : left + width].copy()  # torch's quick resize wants it dense
    return interpolate(torch.from_numpy(part)[None].permute(0, 3, 1, 2), (size, size), mode=resample, antialias=True)


def _by_pillow(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = box
    within = max(0.0, left), max(0.0, top), min(image.shape[1], left + width), min(image.shape[0], top + height)
    made = Image.fromarray(image).resize((size, size), FILTERS[resample], box=within)
    return torch.from_numpy(np.array(made))[None].permute(0, 3, 1, 2)
