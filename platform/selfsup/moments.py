"""Checks of the statistics of samples, a mean and a std for each channel."""

from typing import Any

from pydantic import model_validator


def moments_of_channels() -> Any:
    """Return a validator of Stats: it raises ValueError where not every channel has a mean and a std."""

    def check(stats: Any) -> Any:
        if (len(stats.mean), len(stats.std)) != (stats.channels, stats.channels):
            raise ValueError(f"{len(stats.mean)} means and {len(stats.std)} deviations of {stats.channels} channels")
        return stats

    return model_validator(mode="after")(check)
