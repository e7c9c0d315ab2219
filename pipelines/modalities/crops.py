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

from selfsup.pipelines.modalities.decode import Data, Pixels, scaled

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
    *,
    bits: int | None = None,
) -> list[Pixels]:
    """k boxes (k, 4) of top, left, height, width in pixels of the whole image -> k arrays (size, size, 3).

    flips: which of them are mirrored, left to right. bits: of images of 16, as in `decode`. Undecodable for corrupt or
    truncated data.
    """
    sides = (min(height, width) for _, _, height, width in boxes.tolist())
    needed = 8 * max(size / side for size, side in zip(sizes, sides, strict=True))
    image, scale = scaled(data, needed, EIGHTHS, bits=bits)
    cuts = boxes * scale
    whole = (cuts % 1 == 0).all(axis=1)
    wanted = zip(whole.tolist(), cuts.tolist(), sizes, resample, flips or [False] * len(cuts), strict=True)
    return [_crop(image, *each) for each in wanted]


def _crop(image: Pixels, whole: bool, box: Sequence[float], size: int, resample: Resample, flip: bool) -> Pixels:
    made = (_by_torch if whole else _by_pillow)(image, box, size, resample)
    pixels: Pixels = (made.flip(3) if flip else made).numpy()[0].transpose(1, 2, 0)
    return pixels


def _by_torch(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = map(int, box)
    part = image[top : top + height, left : left + width].copy()  # torch's quick resize wants it dense
    return interpolate(_batch_of_one(part), (size, size), mode=resample, antialias=True)


def _by_pillow(image: Pixels, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """-> (1, 3, size, size), channels last"""
    top, left, height, width = box
    within = max(0.0, left), max(0.0, top), min(image.shape[1], left + width), min(image.shape[0], top + height)
    made = Image.fromarray(image).resize((size, size), FILTERS[resample], box=within)
    return _batch_of_one(np.array(made))


def _batch_of_one(image: Pixels) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W), channels last

    Axes are turned by numpy: torch gives up the interpreter's lock for each view, and threads then wait for it.
    """
    return torch.from_numpy(image.reshape(1, *image.shape).transpose(0, 3, 1, 2))
