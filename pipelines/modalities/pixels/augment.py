"""Photometric augmentation of a batch on the training device, equal to torchvision's for every sample of RGB.

Of other numbers of channels gray is the mean of all, and hue does not change. B: batch, C: channels, H, W: pixels.
Images are float in [0, 1]. Nothing here samples: all random numbers are arguments.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from selfsup.views import Crop

PIECE = 16  # images at a time on a CPU: intermediate results of more exceed its cache

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, with torchvision's rounding


def scaled(raw: Tensor) -> Tensor:
    """(B, H, W, C), uint8 or float in [0, 1] -> (B, C, H, W) float in [0, 1]"""
    images = raw.permute(0, 3, 1, 2)
    if raw.dtype == torch.uint8:
        return images.contiguous().float().div_(255)
    return images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def normalize(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalize (B, C, H, W) in [0, 1] in place, to mean 0 and deviation 1 of each channel of the data set."""
    return images.sub_(_constant(mean, images.device)).div_(_constant(std, images.device))


def _constant(values: Sequence[float], device: torch.device) -> Tensor:
    """-> (C, 1, 1), on the device without waiting for what is queued there"""
    column = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
    return column.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else column


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W), (B,) factors -> (B, C, H, W)"""
    return _column(factor).mul(images).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W), (B,) factors -> (B, C, H, W): blend with the image's mean gray"""
    # Two means: the order in which one mean over all pixels is summed depends on the batch size.
    return _blend(images, _luma(images).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W), (B,) factors -> (B, C, H, W): blend with each pixel's gray"""
    return _blend(images, _luma(images), factor)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """(B, C, H, W), (B,) turns in [-0.5, 0.5] -> (B, C, H, W): rotate the hue of RGB, in HSV

    Without the sectors of the HSV hexagon: a channel decreases from its maximum with its distance on the hue circle.
    """
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    phases = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device).view(3, 1, 1)  # of red, green and blue
    distance = (sixths[:, None] + 6 * _column(factor) + phases).remainder_(6)
    return value[:, None] - chroma[:, None] * torch.minimum(distance, 4 - distance).clamp_(0, 1)


def grayscale(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W)"""
    return _luma(images).expand_as(images)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """(B, C, H, W), (B,) sigmas -> (B, C, H, W): blur with a kernel of `kernel` (odd) pixels a side, reflected borders

    Two products with banded matrices instead of a convolution, since every sample has its own sigma.
    """
    height, width = images.shape[2:]
    rows = (images.mT.flatten(1, 2) @ _blur_matrix(sigma, height, kernel)).view_as(images.mT).mT
    return (rows.flatten(1, 2) @ _blur_matrix(sigma, width, kernel)).view_as(images)


def solarize(images: Tensor, threshold: float = 0.5) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): invert all values at or above the threshold"""
    return torch.where(images >= threshold, 1 - images, images)


def photometric(images: Tensor, crop: Crop, draws: Tensor) -> None:
    """Apply color jitter, gray, blur and solarization, each with its probability, in place to (B, C, H, W) images.

    draws: (B, 13 * crop.parts) uniform in [0, 1), on the CPU whatever the device of the images, so that the
    samples of an operation are known without waiting for the device. The blur's kernel is a tenth of the image, as in
    SimCLR (arXiv 2002.05709, appendix A); its borders are reflected, as in torchvision.
    """
    whole, images = images, images if crop.cells == 1 else _cells(images, crop.cells).flatten(0, 2)
    piece = PIECE * crop.parts if images.device.type == "cpu" else len(images)
    pieces = (tensor.split(piece) for tensor in (images, draws.reshape(len(draws) * crop.parts, -1)))  # type: ignore[no-untyped-call]
    for part, part_draws in zip(*pieces, strict=True):
        _photometric(part, crop, part_draws)
    if crop.cells > 1:
        cells = _cells(whole, crop.cells)
        cells.copy_(images.view_as(cells))


def _cells(images: Tensor, number: int) -> Tensor:
    """(B, C, H, W) -> (B, number, number, C, h, w): a view of its cells, row by row."""
    height, width = (length // number for length in images.shape[2:])
    cells = images[:, :, : number * height, : number * width].unfold(2, height, height).unfold(3, width, width)
    return cells.permute(0, 2, 3, 1, 4, 5)


def _photometric(images: Tensor, crop: Crop, draws: Tensor) -> None:
    jitters, strengths, ranks, grays, blurs, sigmas, solarizes = torch.split(draws, [1, 4, 4, 1, 1, 1, 1], dim=1)
    low, high = crop.blur_sigma
    kernel = 2 * (images.shape[-1] // 20) + 1
    jitter = partial(_jitter, images, crop, jitters[:, 0] < crop.jitter, strengths, ranks)
    gray = partial(_apply, images, grays[:, 0] < crop.gray, grayscale)
    for operation in (gray, jitter) if crop.gray_first else (jitter, gray):
        operation()
    _apply(images, blurs[:, 0] < crop.blur, partial(gaussian_blur, kernel=kernel), low + (high - low) * sigmas[:, 0])
    _apply(images, solarizes[:, 0] < crop.solarize, solarize)


def _jitter(images: Tensor, crop: Crop, chosen: Tensor, strengths: Tensor, ranks: Tensor) -> None:
    """Apply the four operations of ColorJitter in place to chosen samples, in an order drawn per sample.

    chosen: (B,) bool. strengths: (B, 4). ranks: (B, 4), whose order is that of the operations.
    """
    operations = (
        (brightness, max(0.0, 1 - crop.brightness), 1 + crop.brightness),
        (contrast, max(0.0, 1 - crop.contrast), 1 + crop.contrast),
        (saturation, max(0.0, 1 - crop.saturation), 1 + crop.saturation),
        (hue, -crop.hue, crop.hue),
    )
    order = ranks.argsort(dim=1, stable=True)
    for turn in order.unbind(dim=1):
        for number, (operation, low, high) in enumerate(operations):
            if low < high:
                factor = low + (high - low) * strengths[:, number]
                _apply(images, chosen & (turn == number), operation, factor)


def _apply(images: Tensor, chosen: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> None:
    """Apply an operation in place to chosen samples. chosen: (B,) bool. parameters: (B,) each."""
    index = chosen.nonzero()[:, 0]
    if len(index) == 0:
        return
    values = [parameter[index].to(images.device, non_blocking=True) for parameter in parameters]
    index = index.to(images.device, non_blocking=True)
    images[index] = operation(images[index], *values)


def _blend(images: Tensor, anchor: Tensor, factor: Tensor) -> Tensor:
    factor = _column(factor)
    return (factor * images + (1 - factor) * anchor).clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W)"""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = torch.split(images, 1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _column(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)


def _blur_matrix(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """(B,) sigmas -> (B, size, size), whose column i holds the weights of all pixels in pixel i"""
    radius = kernel // 2
    assert kernel % 2 == 1, f"a kernel of {kernel} pixels has no center; expected an odd number"
    assert radius < size, f"a kernel of {kernel} pixels does not fit into {size} pixels"
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    weight = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)
    pixel = torch.arange(size, device=sigma.device)
    source = (pixel + offset[:, None]).abs()  # (kernel, size); reflected at the first pixel, then at the last
    source = torch.where(source < size, source, 2 * (size - 1) - source)
    return torch.einsum("bk,kji->bji", weight, (source[:, None] == pixel[:, None]).to(weight))
