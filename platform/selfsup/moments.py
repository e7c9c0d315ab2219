"""The statistics of samples, a mean and a std for each channel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

DIGITS = 6


def mean_and_std(
    first: NDArray[np.float64], second: NDArray[np.float64], least: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(C,), (C,) -> C, C: of the first two moments of each channel. least: std, since samples are divided by it.

    They are rounded to be equal on every processor: the last digits depend on the order of additions.
    """
    std = np.sqrt(np.maximum(second - first**2, least**2)).clip(min=least)
    return tuple(np.round(first, DIGITS).tolist()), tuple(np.round(std, DIGITS).tolist())


def moments_of_channels() -> Any:
    """Return a validator of Stats: it raises ValueError where not every channel has a mean and a std."""

    def check(stats: Any) -> Any:
        if (len(stats.mean), len(stats.std)) != (stats.channels, stats.channels):
            raise ValueError(f"{len(stats.mean)} means and {len(stats.std)} deviations of {stats.channels} channels")
        return stats

    return model_validator(mode="after")(check)
