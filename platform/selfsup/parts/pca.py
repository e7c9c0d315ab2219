"""Principal components of image patches, in closed form.

p: points along each axis of a patch, C: channels, P: values of a patch, prod(p) * C.
"""

from functools import reduce

import torch
from torch import Tensor

NEIGHBORS = 0.95  # correlation of neighboring pixels of photographs, the usual model of image coding
CHANNELS = 0.9  # of neighboring channels of one pixel: red and green, green and blue


def components(number: int, *, sides: tuple[int, ...], channels: int) -> Tensor:
    """-> (P, number): the principal components of patches of most variance, orthonormal, the largest first. sides: p.

    The covariance is a model's, that of a first-order Markov field, 0.95^distance along each axis and 0.9^distance
    along the channels, whose components are nearly cosines (Ahmed, Natarajan and Rao, "Discrete cosine transform",
    1974) of lightness and of two opponent colors: they depend on no data. Values of a patch are in the order of
    `patchify`. Of equal variances, the component that varies along the last axis comes first.
    """
    axes = [*(_principal(side, NEIGHBORS) for side in sides), _principal(channels, CHANNELS)]
    variance, vectors = (reduce(torch.kron, parts) for parts in zip(*axes, strict=True))
    assert number <= len(variance), f"{number} components of {len(variance)} values"
    order = variance.log().mul(1e9).round().argsort(descending=True, stable=True)  # equal products may be rounded apart
    basis: Tensor = vectors[:, order[:number]].float()
    return basis


def _principal(number: int, correlation: float) -> tuple[Tensor, Tensor]:
    """-> (n,), (n, n): variances along an axis, the largest first, and components in columns, which begin positive."""
    place = torch.arange(number, dtype=torch.float64)
    variance, vectors = torch.linalg.eigh(correlation ** (place[:, None] - place).abs())
    return variance.flip(0), (vectors * vectors[0].sign()).flip(1)
