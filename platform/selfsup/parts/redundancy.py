"""Statistics of embeddings over the batch that keep them from collapsing, in fp32 whatever precision the step has.

N: samples of this process, D: channels. Over W processes each returns its own share; the mean of the shares is the loss
of the whole batch. Its matrices of D x D are cut by rows: each process works out D / W of them, on all samples.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist
from selfsup.parts.precision import no_autocast


def barlow_twins(a: Tensor, b: Tensor, *, redundancy: float) -> Tensor:
    """(N, D), (N, D) -> (): the distance of the cross-correlation of two views' channels from the identity.

    Barlow Twins (arXiv 2103.03230), eq. 1 and 2. redundancy: lambda.
    """
    a, b = (F.batch_norm(dist.gather(view.float()), None, None, training=True) for view in (a, b))
    rows, first = _part(a)
    with no_autocast(a):
        correlation = rows.T @ b / len(a)
    same = correlation.diagonal(first)
    loss = (1 - same).square().sum() + redundancy * _off(correlation, first)
    return loss * dist.world_size()


class VICRegTerms(NamedTuple):
    """The three terms of the loss, each of shape () and not yet weighted."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg(a: Tensor, b: Tensor, *, epsilon: float = 1e-4) -> VICRegTerms:
    """(N, D), (N, D) -> the distance of two views, and the variance and covariance terms of both.

    VICReg (arXiv 2105.04906), eq. 1 to 6, as in the authors' code, which made the published numbers: the distance is a
    mean over channels, where eq. 5 has their sum; the views' variance terms are averaged, where eq. 6 adds them.
    """
    a, b = a.float(), b.float()
    terms = [_spread(dist.gather(view), epsilon) for view in (a, b)]
    return VICRegTerms(
        invariance=F.mse_loss(a, b),
        variance=(terms[0][0] + terms[1][0]) / 2,
        covariance=terms[0][1] + terms[1][1],
    )


def tico(query: Tensor, key: Tensor, moment: Tensor, *, contrast: float) -> Tensor:
    """(N, D), (N, D), (D, D) -> (): minus the similarity of queries and keys, and a penalty on directions used before.

    TiCo (arXiv 2206.10698), algorithm 1. Queries and keys are unit vectors; moment: C, of queries; contrast: rho.
    """
    with no_autocast(query):
        across = (query @ moment * query).sum(dim=1).mean()
    return 1 - (query * key).sum(dim=1).mean() + contrast * across


def second_moment(x: Tensor) -> Tensor:
    """(N, D) -> (D, D): the mean of x x^T over the samples of all processes, with gradient where x has one."""
    x = x.float()
    with no_autocast(x):
        if not x.requires_grad:
            return dist.mean(x.T @ x / len(x))
        rows = dist.gather(x)
        return rows.T @ rows / len(rows)


def coding_rate(z: Tensor, *, distortion: float) -> Tensor:
    """(V, N, D), unit vectors -> (): how much space those of all workers fill, in the mean over views.

    SimDINO (arXiv 2502.10385): gamma / 2 * ln det(I + D / distortion * the mean of z z^T), where distortion is its
    epsilon squared, and gamma is (D + N) / (D N) for N samples in all, as in the authors' code.
    """
    z = z.float()
    samples, dim = z.shape[1] * dist.world_size(), z.shape[2]
    with no_autocast(z):
        moment = dist.average(z.mT @ z / z.shape[1])
        matrix = torch.eye(dim, device=z.device) + dim / distortion * moment
        rate: Tensor = torch.linalg.cholesky_ex(matrix).L.diagonal(dim1=1, dim2=2).log().sum(dim=1).mean()
    return rate * ((dim + samples) / (dim * samples))


def _spread(z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(M, D), all processes' -> (), (): the variance and the covariance term, VICReg's eq. 1 to 4."""
    total, dim = z.shape
    z = z - z.mean(dim=0)
    rows, first = _part(z)
    with no_autocast(z):
        covariance = rows.T @ z / (total - 1)
    deviation = (covariance.diagonal(first) + epsilon).sqrt()
    share = dist.world_size() / dim
    return F.relu(1 - deviation).sum() * share, _off(covariance, first) * share


def _part(z: Tensor) -> tuple[Tensor, int]:
    """(M, D) -> (M, D / W): the channels that this process works out; and the number of the first."""
    parts = z.tensor_split(dist.world_size(), dim=1)
    return parts[dist.rank()], sum(part.shape[1] for part in parts[: dist.rank()])


def _off(matrix: Tensor, first: int) -> Tensor:
    """(R, D), rows of a square from `first` on -> (): the sum of the squares off its diagonal."""
    row, column = torch.arange(len(matrix), device=matrix.device), torch.arange(matrix.shape[1], device=matrix.device)
    return matrix.square().masked_fill(row[:, None] + first == column, 0).sum()
