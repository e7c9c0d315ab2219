"""Attention masks: what the class token attends to, against the objects of an image.

As Mathilde Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv 2104.14294,
section 4.2.2 and figure 4: each head's attention in the last block, of which the largest shares that make 60 % are a
mask, each patch of it a square of pixels; the Jaccard index of each object with the head that fits it best, the mean
over objects, then over images (the first author in the authors' issue 54). Deviations: images are seen whole at the
encoder's size; images without an object do not count.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Metric, Score, check, maps_of
from selfsup.knob import Knobs, knob


class AttentionMasks(Evaluator):
    """Jaccard index of an object and the class token's attention, thresholded, of the head that fits it best."""

    reads, target = "attention", "inst"
    metrics = MappingProxyType({"jaccard": Metric()})

    class Hyper(Knobs):
        mass: float = knob(0.6, "share of a head's attention that its mask holds", gt=0, lt=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        check(features, labelled=False)
        _, maps = maps_of(features)
        scores = [
            jaccard(masks(value, self.hyper.mass), map_).max(1).mean()
            for value, map_ in zip(features.val, maps, strict=True)
            if map_.any()
        ]
        if not scores:
            raise DataError("evaluation: no validation image shows an object")
        yield "jaccard", 100 * float(np.mean(scores))


def masks(attention: NDArray[np.float32], mass: float) -> NDArray[np.bool_]:
    """(T, H) -> (T, H): of each head the patches of the largest shares, which hold `mass` of all together"""
    order = attention.argsort(axis=0, kind="stable")
    share = np.take_along_axis(attention, order, axis=0).astype(np.float64)
    share /= share.sum(0)
    mask = np.zeros(attention.shape, bool)
    np.put_along_axis(mask, order, share.cumsum(0) > 1 - mass, axis=0)
    return mask


def jaccard(mask: NDArray[np.bool_], map_: Map) -> NDArray[np.float64]:
    """(T, H), (S, S) -> (O, H): intersection over union of each object and each mask, in pixels"""
    grid = math.isqrt(len(mask))
    side = len(map_) // grid
    patches = map_.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(len(mask), -1)
    pixels = np.stack([(patches == number).sum(1) for number in np.unique(map_) if number])  # (O, T)
    common = pixels @ mask.astype(np.int64)
    index: NDArray[np.float64] = common / (pixels.sum(1)[:, None] + side**2 * mask.sum(0) - common)
    return index
