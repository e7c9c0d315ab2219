"""Crops of an encoded image: one decode, no larger than needed, and a resize with antialiasing for each crop.

A box of whole pixels is resized by torch, as torchvision does. A box with fractional edges, as in a JPEG decoded at a
fraction of its size, is resized by Pillow: as exact, but five times slower.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.modality import Data, DecodeError
from selfsup.pipelines.modalities.pixels.decode import RGB, How, Values, decode_scaled

Resample = Literal["bilinear", "bicubic"]

EIGHTHS = (1, 2, 8)  # scales of a JPEG's decode: at 3/8 and 4/8 Pillow's resize costs more than the decode saves
RESIZES: dict[Resample, Callable[..., Tensor]] = {
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
}
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
    kind = np.uint8 if how.depth == 8 else np.float32
    made = [np.empty((1, size, size, how.channels), kind) for size in sizes]
    [cuts] = _cuts([data], boxes[None], np.array([flips or [False] * len(sizes)]), made)
    cuts.make(resample, how)
    return [crop[0] for crop in made]


def fill(
    samples: Sequence[Data],
    boxes: NDArray[np.float64],
    resample: Sequence[Resample],
    flips: NDArray[np.bool_],
    how: How,
    out: Sequence[Values],
) -> list[int]:
    """Write the `crops` of n samples, (n, k, 4) and (n, k), to k arrays (n, size, size, C); return which are damaged.

    What can be is done for all samples at once: while one thread runs Python, others wait.
    """
    bad = []
    for number, cuts in enumerate(_cuts(samples, boxes, flips, out)):
        try:
            cuts.make(resample, how)
        except DecodeError:
            bad.append(number)
    return bad


def _cuts(
    samples: Sequence[Data], boxes: NDArray[np.float64], flips: NDArray[np.bool_], out: Sequence[Values]
) -> Iterator["_Cuts"]:
    sizes = np.array([view.shape[1] for view in out])
    eighths = 8 * (sizes / boxes[..., 2:].min(axis=2)).max(axis=1)
    places = zip(*(torch.split(torch.from_numpy(_channels_first(view)), 1) for view in out), strict=True)
    return map(_Cuts, samples, eighths.tolist(), boxes.astype(float).tolist(), flips.tolist(), places)


class _Cuts(NamedTuple):
    """The crops of an image: the scale that they need; a box, a flip and a place, (1, C, size, size), of each."""

    data: Data
    eighths: float
    boxes: list[list[float]]
    flips: list[bool]
    places: tuple[Tensor, ...]

    def make(self, resample: Sequence[Resample], how: How) -> None:
        image, scale = decode_scaled(self.data, self.eighths, EIGHTHS, how)
        planes = _channels_first(image[None])
        for box, flip, place, kernel in zip(self.boxes, self.flips, self.places, resample, strict=True):
            scaled = box if scale == 1 else [scale * edge for edge in box]
            whole = [int(edge) for edge in scaled]
            if whole == scaled:
                _resize_by_torch(planes, whole, kernel, place)
            else:
                place.copy_(_resize_by_pillow(image, scaled, place.shape[2], kernel))
            if flip:
                place.copy_(place.flip(3))


def _channels_first(images: Values) -> Values:
    """(n, H, W, C) -> (n, C, H, W). By NumPy: torch frees the interpreter's lock for a view, and has to wait for it."""
    return images.transpose(0, 3, 1, 2)


def _resize_by_torch(image: Values, box: Sequence[int], resample: Resample, place: Tensor) -> None:
    """Write a part of an image, (1, C, H, W), to its place, (1, C, size, size); both channels last."""
    top, left, height, width = box
    part = image[:, :, top : top + height, left : left + width].copy("K")  # torch's fast resize needs it contiguous
    size = place.shape[2:]
    RESIZES[resample](torch.from_numpy(part), size, False, None, out=place)  # `interpolate` takes no `out`
    if part.dtype != np.uint8:
        place.clamp_(0, 1)  # which integers are by themselves


def _resize_by_pillow(image: Values, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """(H, W, C) -> (1, C, size, size)"""
    top, left, height, width = box
    within = max(0.0, left), max(0.0, top), min(image.shape[1], left + width), min(image.shape[0], top + height)

    def resized(pixels: Values) -> Values:
        return np.array(Image.fromarray(pixels).resize((size, size), FILTERS[resample], box=within))

    if image.shape[2] == 3 and image.dtype == np.uint8:
        return torch.from_numpy(_channels_first(resized(image)[None]))
    bands = [resized(np.ascontiguousarray(band)) for band in np.moveaxis(image, 2, 0)]  # four would be taken for RGBA
    return torch.from_numpy(np.stack(bands)[None]).clamp_(0, 255 if image.dtype == np.uint8 else 1)
