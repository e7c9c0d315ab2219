"""CIE L*a*b* of sRGB images, and the bins of their colors. B: images, Q: bins."""

from functools import cache

import torch
from torch import Tensor

from selfsup.parts.precision import no_autocast

XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)  # D65, seen at 2 degrees
CELL = 10.0  # of a bin's side, in units of a and b
LATTICE = 65  # levels of each channel by which bins are found


def to_lab(rgb: Tensor) -> Tensor:
    """(B, 3, ...) in [0, 1] -> (B, 3, ...): lightness from 0 to 100, then a and b."""
    with no_autocast(rgb):
        linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        ratio = _mapped(linear, _matrix(rgb))
        x, y, z = torch.where(ratio > 0.008856, ratio ** (1 / 3), 7.787 * ratio + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def to_rgb(lab: Tensor) -> Tensor:
    """(B, 3, ...) -> (B, 3, ...) in [0, 1]: the inverse of `to_lab`; colors that sRGB does not have are cut off."""
    with no_autocast(lab):
        light, a, b = lab.unbind(1)
        y = (light + 16) / 116
        roots = torch.stack([y + a / 500, y, (y - b / 200).clamp_min(0)], dim=1)
        ratio = torch.where(roots > 0.2068966, roots**3, (roots - 16 / 116) / 7.787)
        linear = _mapped(ratio, _matrix(lab).inverse()).clamp(0, 1)
        return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-12) ** (1 / 2.4) - 0.055, 12.92 * linear)


@cache
def bins() -> tuple[tuple[float, float], ...]:
    """Return a and b in the middle of each cell of 10 by 10 that a color of sRGB falls into."""
    level = torch.linspace(0, 1, LATTICE, dtype=torch.float64, device="cpu")
    lattice = torch.stack(torch.meshgrid(level, level, level, indexing="ij")).flatten(1)[None]
    cells = (to_lab(lattice)[0, 1:].T / CELL).round().unique(dim=0)  # type: ignore[no-untyped-call]
    return tuple((CELL * a, CELL * b) for a, b in cells.tolist())


def near_bins(ab: Tensor, centers: Tensor, number: int, sigma: float) -> tuple[Tensor, Tensor]:
    """(..., 2), (Q, 2) -> (..., number) int64, (..., number): the nearest bins, the nearest first, and their weights.

    Zhang, Isola and Efros (arXiv 1603.08511), section 2.2: weights of a Gaussian of the distance, which sum to 1.
    """
    with no_autocast(ab):
        apart, nearest = torch.cdist(ab.flatten(0, -2), centers.to(ab.dtype)).topk(number, dim=1, largest=False)
        weights = (-(apart**2) / (2 * sigma**2)).softmax(dim=1)
    return nearest.view(*ab.shape[:-1], number), weights.view(*ab.shape[:-1], number)


def _mapped(colors: Tensor, matrix: Tensor) -> Tensor:
    """(B, 3, ...), (3, 3) -> (B, 3, ...)"""
    return torch.einsum("rc,bc...->br...", matrix, colors)


def _matrix(like: Tensor) -> Tensor:
    """-> (3, 3): from linear RGB to XYZ, in shares of white's"""
    return like.new_tensor(XYZ) / like.new_tensor(WHITE)[:, None]
