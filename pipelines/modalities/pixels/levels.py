"""Conversions of decoded values: from 16 bits to 8, from any colors to RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.modality import DecodeError

Pixels = NDArray[np.uint8]


def divide_by_alpha(values: NDArray[np.int64]) -> Pixels:
    """(H, W, 4), multiplied by alpha -> (H, W, 3)"""
    alpha = np.maximum(values[..., 3:], 1)
    return rescale(np.minimum(values[..., :3], alpha), alpha)


def to_8_bits(values: NDArray[Any], bits: int | None) -> Pixels:
    """(H, W, bands) -> (H, W, bands) of 8 bits. Raises DecodeError for values that do not fit 16 bits."""
    white = 2 ** (bits or 16) - 1
    return rescale(np.minimum(in_16_bits(values), white).astype(np.int64), np.int64(white))


def in_16_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as they are. Raises DecodeError for those that do not fit 16 bits."""
    if values.min() < 0 or values.max() >= 2**16:
        span = f"values from {values.min()} to {values.max()}"
        raise DecodeError(f"{span}; expected 0 to 65535: save it with 8 or 16 bits")
    return values


def rescale(values: NDArray[np.int64], white: NDArray[np.int64] | np.int64) -> Pixels:
    """Scale values so that white becomes 255, rounded."""
    return ((2 * 255 * values + white) // (2 * white)).astype(np.uint8)


def as_colors(pixels: Pixels) -> Pixels:
    """(H, W, 1 to 4), the last of two or four alpha -> (H, W, 3)"""
    own = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    return np.ascontiguousarray(np.broadcast_to(own, (*pixels.shape[:2], 3)))


def rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB, without alpha. Raises DecodeError for floating-point numbers."""
    if image.mode == "F":  # Pillow's own conversion would make values up to 1 black
        raise DecodeError("values are floating-point numbers; expected integers: save it with 8 or 16 bits")
    if "transparency" in image.info:  # avoids a warning of Pillow
        image = image.convert("RGBA")
    if image.mode == "La":  # Pillow converts it to LA alone
        image = image.convert("LA")
    return image.convert("RGB")
