"""Images that are tensors already: cut and resized on their device, as Pillow resizes what is decoded here.

B: batch, C: channels, H, W: pixels. Each axis is resized by one matrix, which a traced graph holds as a constant.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selfsup.errors import SpecError
from selfsup.pipelines.modalities.pixels.crops import Resample
from selfsup.pipelines.modalities.pixels.decode import How

BEYOND = 0.25  # of [0, 1]: what a bicubic resize may overshoot; normalized values lie further out


def checked(images: Tensor, how: How) -> Tensor:
    """(B, C, H, W), integers or floats -> floats in [0, 1]. Raises SpecError for what is no such batch."""
    if images.ndim != 4 or images.shape[1] != how.channels:
        raise SpecError(f"expected images (B, {how.channels}, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        white: int = 2 ** (how.bits or 16) - 1
        return images.float() / white
    low, high = (float(end) for end in images.detach().aminmax()) if images.numel() else (0.0, 1.0)
    if low < -BEYOND or high > 1 + BEYOND:
        raise SpecError(
            f"expected floats in [0, 1], not {low:.3g} to {high:.3g}: give uint8, or floats divided by 255; "
            "mean and deviation are applied here"
        )
    return images.float()


def resampled(images: Tensor, box: Sequence[float], size: int, resample: Resample) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, size, size) in [0, 1]. box: top, left, height, width, in pixels."""
    top, left, height, width = box
    if all(edge == int(edge) for edge in box):  # nothing beyond whole pixels is looked at, as torch's resize does
        images = images[:, :, int(top) : int(top + height), int(left) : int(left + width)]
        top = left = 0.0
    down, across = (
        _weights(length, start, extent, size, resample).to(images)
        for length, start, extent in ((images.shape[2], top, height), (images.shape[3], left, width))
    )
    return (down @ (images @ across.mT).clamp(0, 1)).clamp(0, 1)  # rows first, as Pillow, which has no room beyond


def _weights(length: int, start: float, extent: float, size: int, resample: Resample) -> Tensor:
    """-> (size, length): how much each pixel of an axis counts in each pixel of the result, which covers a part of it.

    With antialiasing: the kernel widens with the scale.
    """
    scale = extent / size
    center = start + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    away = (torch.arange(length, dtype=torch.float64) + 0.5 - center[:, None]) / max(scale, 1.0)
    weight = KERNELS[resample](away.abs())
    return (weight / weight.sum(dim=1, keepdim=True)).float()


def _linear(away: Tensor) -> Tensor:
    return (1 - away).clamp(min=0)


def _cubic(away: Tensor, a: float = -0.5) -> Tensor:
    """Return Keys' kernel ("Cubic convolution interpolation for digital image processing", 1981)."""
    near = ((a + 2) * away - (a + 3)) * away**2 + 1
    far = ((away - 5) * away + 8) * away * a - 4 * a
    return torch.where(away < 1, near, torch.where(away < 2, far, 0.0))


KERNELS: dict[Resample, Callable[[Tensor], Tensor]] = {"bilinear": _linear, "bicubic": _cubic}
