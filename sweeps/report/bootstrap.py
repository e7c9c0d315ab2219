"""The uncertainty of a difference over validation images alone: a paired bootstrap (Efron, Annals of Statistics 1979).

Images are drawn anew, with replacement, the same ones for both arms, and the seeds that there are stay: what other
images of the same kind would change. The interval is that of percentiles.
"""

from functools import lru_cache

import numpy as np

from selfsup.sweeps.report.images import Hits
from selfsup.sweeps.report.stats import LEVEL

DRAWS = 9999
Interval = tuple[float, float]


def difference(one: Hits, other: Hits) -> Interval:
    """(S, M), (T, M) -> the ends of the interval of the first mean accuracy less the second, in percentage points."""
    assert one.shape[1] == other.shape[1], "arms that saw other images are not paired"
    gains = one.sum(0) * len(other) - other.sum(0) * len(one)  # of an image, in parts of S T
    values, times = np.unique(gains, return_counts=True)
    low, high = _ends(tuple(values.tolist()), tuple(times.tolist()))
    unit = 100 / (len(one) * len(other))
    return low * unit, high * unit


@lru_cache(maxsize=1024)
def _ends(values: tuple[int, ...], times: tuple[int, ...]) -> Interval:
    """Return percentiles of the mean of as many draws as there are images. times: images that have each value.

    How often each value is drawn is multinomial, so that memory is bounded whatever the number of images.
    """
    images = sum(times)
    counts = np.random.default_rng(0).multinomial(images, np.array(times) / images, size=DRAWS)
    low, high = np.quantile(counts @ np.array(values) / images, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
