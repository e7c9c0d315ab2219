"""RandAugment by timm, of one image, as a function of the image and its random numbers. No torch: data tasks run this.

Cubuk, Zoph, Shlens and Le, "RandAugment: practical automated data augmentation with a reduced search space", NeurIPS
2020, arXiv:1909.13719. Operations grow with the magnitude, which is normal about its mean, as in the recipes of timm,
DeiT, BEiT and MAE: rand-m9-mstd0.5-inc1.
"""

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.timm_module import own_module, seed

Strength = tuple[int, float]  # mean and deviation of the magnitude, of 10


class _Threads(threading.local):
    """A module of timm for each thread, and its transforms."""

    def __init__(self) -> None:
        self.timm = own_module("data.auto_augment")
        self.transform: Callable[..., Any] = lru_cache(maxsize=8)(self._transform)

    def _transform(self, strength: Strength, side: int, mean: tuple[float, ...]) -> Any:
        settings = {
            "translate_const": int(0.45 * side),
            "img_mean": tuple(min(255, round(255 * value)) for value in mean),
            "interpolation": Image.Resampling.BICUBIC,
            "magnitude_max": math.nextafter(10, 0),  # at 10 timm posterizes to no bits, which Pillow refuses
        }
        return self.timm.rand_augment_transform("rand-m{}-mstd{}-inc1".format(*strength), settings)


_own = _Threads()


def rand_augment(
    pixels: NDArray[np.uint8], draws: NDArray[np.floating], strength: Strength, mean: tuple[float, ...]
) -> NDArray[np.uint8]:
    """(H, W, 3), (2,) in [0, 1) -> (H, W, 3). mean: of each channel, in [0, 1], fills what comes in."""
    high, low = (int(2**16 * float(draw)) for draw in draws)
    transform = _own.transform(strength, min(pixels.shape[:2]), mean)
    seed(_own.timm, high << 16 | low)
    return np.asarray(transform(Image.fromarray(pixels)))
