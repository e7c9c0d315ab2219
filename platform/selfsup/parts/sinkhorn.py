"""Assignments of samples to prototypes that use every prototype equally. N: samples of this process, K: prototypes."""

import torch
from torch import Tensor

from selfsup.parts import dist

LEAST = 1e-8  # what CAPI's code adds to sums, which shows where a sample is far from all clusters


@torch.no_grad()
def sinkhorn(
    scores: Tensor,
    *,
    epsilon: float | Tensor,
    iterations: int,
    number: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """(N, K) -> (N, K): soft assignments, each row sums to 1; over all processes the columns sum to nearly the same.

    Cuturi, "Sinkhorn distances", NIPS 2013, as SwAV (arXiv 2006.09882), eq. 3 to 5 and listing 1. number: () the
    samples of all processes, where these hold unequally many. valid: (N,) bool, rows that take part, if not all; the
    others' are zero.
    """
    codes = scores.float() / epsilon  # in place from here: they are as large as a step's largest tensors
    codes.sub_(dist.largest(codes.max())).exp_()
    samples = number if number is not None else len(codes) * dist.world_size()
    if valid is not None:
        samples = dist.total(valid.sum()).clamp_min(1)
        codes.mul_(valid[:, None])
    least = torch.finfo(codes.dtype).tiny  # a row that takes no part, or all of them, is divided by that
    codes.div_(dist.total(codes.sum()).clamp_min(least))
    for _ in range(iterations):
        codes.div_(dist.total(codes.sum(dim=0)).clamp_min(least)).div_(codes.shape[1])
        codes.div_(codes.sum(dim=1, keepdim=True).clamp_min(least)).div_(samples)
    return codes.mul_(samples)


@torch.no_grad()
def sinkhorn_by_place(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """(B, N, K) -> (B, N, K): soft assignments of B samples of this process at N places, each place by itself.

    Each row sums to 1; at every place the columns sum to nearly the same over all processes. CAPI (arXiv 2502.08769),
    section 3.2, "positional collapse".
    """
    codes = scores.float() / epsilon
    codes.sub_(dist.largest(codes.amax(dim=0))).exp_()
    for _ in range(iterations):
        codes.div_(dist.total(codes.sum(dim=0)) + LEAST)
        codes.div_(codes.sum(dim=2, keepdim=True) + LEAST)
    return codes
