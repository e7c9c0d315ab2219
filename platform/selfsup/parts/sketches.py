"""Distances of a batch of embeddings from a standard Gaussian along random directions, in fp32 whatever the step has.

V: views, N: samples of this process, D: channels, M: directions, T: frequencies.
Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist, noise
from selfsup.parts.precision import no_autocast


def first_draws() -> Tensor:
    """-> (1, 2): the draws of the first step's directions: a random number, by torch's seed, and the step's."""
    return torch.cat([torch.rand(1, 1), torch.zeros(1, 1)], dim=1)


def next_draws(draws: Tensor) -> None:
    """Turn the draws (1, 2) of one step's directions into the next one's."""
    draws[:, 1] += 1 / noise.STEPS


@torch.no_grad()
def directions(draws: Tensor, dim: int, number: int) -> Tensor:
    """(1, 2) -> (D, M): unit vectors, evenly distributed: of the draws alone, so that all processes have the same."""
    return F.normalize(noise.gaussian(draws, (dim, number))[0], dim=0)


def off_center(z: Tensor, *, large: int) -> Tensor:
    """(V, N, D) -> (): the mean squared distance of all views from the mean of their sample's first `large` ones.

    LeJEPA (arXiv 2511.08544), its prediction loss, a mean over channels as in the authors' code.
    """
    z = z.float()
    return (z - z[:large].mean(dim=0)).square().mean()


def epps_pulley(z: Tensor, axes: Tensor, *, frequencies: int, highest: float) -> Tensor:
    """(V, N, D), (D, M) -> (): Epps and Pulley's statistic of each view along each direction, in the mean.

    LeJEPA (arXiv 2511.08544), SIGReg: the samples of all processes times the integral over t, from -highest to highest,
    of w(t) |c(t) - w(t)|^2, where c is their empirical characteristic function and w(t) = exp(-t^2 / 2) that of the
    standard Gaussian. By the trapezoidal rule at so many frequencies from 0 on, doubled, since both halves are alike.
    """
    with no_autocast(z):
        t = torch.linspace(0, highest, frequencies, device=z.device)
        gaussian = (-t.square() / 2).exp()
        angle = (z.float() @ axes)[..., None] * t  # (V, N, M, T)
        cosine, sine = dist.average(torch.stack([angle.cos().mean(dim=1), angle.sin().mean(dim=1)]))
        error = (cosine - gaussian).square() + sine.square()
        integral = 2 * torch.trapezoid(error * gaussian, t).mean()
    return z.shape[1] * dist.world_size() * integral


class VISRegTerms(NamedTuple):
    """The three terms that hold a batch's distribution, each of shape () and not yet weighted."""

    scale: Tensor
    shape: Tensor
    center: Tensor


def visreg(z: Tensor, axes: Tensor, *, epsilon: float = 1e-4) -> VISRegTerms:
    """(V, N, D), (D, M) -> of each view of all processes, in the mean: deviations off 1, shape, and means off 0.

    VISReg (arXiv 2606.02572), eq. 1 to 6: the shape is the squared Wasserstein distance of the samples, centered and
    divided by their deviation, which passes no gradient here, from a Gaussian along each direction: that of sorted ones
    from the quantiles at i / (N + 1). Each process works out M / W of the directions, on all samples.
    """
    z = dist.gather(z.float().transpose(0, 1)).transpose(0, 1)
    number, mean = z.shape[1], z.mean(dim=1, keepdim=True)
    centered = z - mean
    deviation = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / math.sqrt(number)
    own = axes.tensor_split(dist.world_size(), dim=1)[dist.rank()]
    with no_autocast(z):
        along = (centered / (deviation.detach() + epsilon)) @ own
    quantiles = torch.special.ndtri(torch.arange(1, number + 1, device=z.device) / (number + 1))
    error = (along.sort(dim=1).values - quantiles[:, None]).square().mean(dim=(0, 1))
    shape = error.sum() * dist.world_size() / axes.shape[1]
    return VISRegTerms(scale=(1 - deviation).square().mean(), shape=shape, center=mean.square().mean())
