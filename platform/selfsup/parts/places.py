"""Operations of dense objectives on the places of feature maps. N: samples, P: places, row by row, D: channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts.precision import no_autocast


def places(maps: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, P, D)"""
    return maps.flatten(2).mT


def at_each(head: nn.Module, x: Tensor) -> Tensor:
    """(N, P, C) -> (N, P, D): a head for vectors at every place, as convolutions of one pixel do.

    The head sees all samples at one place, then at the next, like views: `norms.convert` groups samples so.
    """
    out: Tensor = head(x.transpose(0, 1).flatten(0, 1))
    return out.view(x.shape[1], x.shape[0], -1).transpose(0, 1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(N, P, D), (N, Q, D) -> (N, P, Q), in fp32"""
    a, b = F.normalize(a.float(), dim=2), F.normalize(b.float(), dim=2)
    with no_autocast(a):
        return a @ b.mT


def propagated(x: Tensor, transformed: Tensor, *, sharpness: float) -> Tensor:
    """(N, P, D), (N, P, D) -> (N, P, D): each place's sum over all places, weighted by how alike they are in x.

    PixPro (arXiv 2011.10043), eq. 3 and 4: cosines below zero count nothing. What is summed are unit vectors, as in its
    code, not in its paper.
    """
    weight = cosines(x, x).clamp_min(0) ** sharpness
    with no_autocast(x):
        return weight @ F.normalize(transformed.float(), dim=2)


def close(a: Tensor, b: Tensor, size: tuple[int, int], *, reach: float) -> Tensor:
    """(N, 7), (N, 7) -> (N, P, P) bool: which places of two views lie near each other in their image.

    PixPro (arXiv 2011.10043), eq. 1: nearer than `reach` diagonals of a place; as in its code, of the larger one, in an
    image that is stretched to a square. a, b: View.box. size: rows and columns of its feature map.
    """
    (one, first), (two, second) = centers(a, size), centers(b, size)
    apart = torch.linalg.vector_norm(one[:, :, None] - two[:, None], dim=3)
    near: Tensor = apart < reach * torch.maximum(first, second)[:, None, None]
    return near


def centers(box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N, 7) -> (N, P, 2), (N,): y and x of the middle of every place of a view, and the diagonal of a place.

    From 0 at the first row or column of the image's pixels to 1 at the last, on each axis.
    """
    top, left, height, width, mirrored, *image = (column[:, None] for column in box.unbind(1))
    last_row, last_column = ((length - 1).clamp_min(1) for length in image)
    rows, columns = ((torch.arange(n, device=box.device) + 0.5) / n for n in size)
    across = torch.where(mirrored > 0, 1 - columns, columns)
    y, x = (top + (height - 1) * rows) / last_row, (left + (width - 1) * across) / last_column
    middle = torch.stack([y[..., None].expand(-1, -1, size[1]), x[:, None].expand(-1, size[0], -1)], dim=3)
    diagonal = torch.hypot((height - 1) / last_row / size[0], (width - 1) / last_column / size[1])
    return middle.flatten(1, 2), diagonal[:, 0]


def agreement(prediction: Tensor, target: Tensor, near: Tensor) -> Tensor:
    """(N, P, D), (N, P, D), (N, P, P) bool -> (): minus the mean cosine over an image's near places, over images.

    PixPro (arXiv 2011.10043), eq. 5, one direction. Views without near places count zero.
    """
    alike = cosines(prediction, target) * near
    return -(alike.sum((1, 2)) / near.sum((1, 2)).clamp_min(1)).mean()
