"""Where a token is, as a vector."""

import torch
from torch import Tensor

BASE = 10000.0  # of the wavelengths, as in "Attention is all you need" (arXiv 1706.03762)


def sincos(grid: tuple[int, int], dim: int) -> Tensor:
    """-> (rows * columns, dim): fixed 2-D sine-cosine embedding of the places of a grid, row by row.

    MAE's layout (arXiv 2111.06377): the first half encodes the column, the second the row, each as [sines, cosines].
    timm's and MoCo v3's layouts differ. dim is a multiple of 4.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid)
    column, row = columns.repeat(grid[0]), rows.repeat_interleave(grid[1])
    return torch.cat([_waves(column, dim // 2), _waves(row, dim // 2)], dim=1).float()


def _waves(place: Tensor, dim: int) -> Tensor:
    """(N,) -> (N, dim)"""
    half = dim // 2
    assert dim == 2 * half, f"a position embedding has 4k channels, not {2 * dim}"
    angle = place[:, None] * BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
