"""Assignments of samples to prototypes that use every prototype equally. N: samples of this process, K: prototypes."""

import torch
from torch import Tensor

from selfsup.parts import dist


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int, number: Tensor | None = None) -> Tensor:
    """(N, K) -> (N, K): soft assignments, each row sums to 1; over all processes the columns sum to nearly the same.

    Cuturi, "Sinkhorn distances", NIPS 2013, as SwAV (arXiv 2006.09882), eq. 3 to 5 and listing 1. number: () the
    samples of all processes, where these hold unequally many.
    """
    scores = scores.float() / epsilon
    codes = torch.exp(scores - dist.largest(scores.max()))
    samples = number if number is not None else len(codes) * dist.world_size()
    codes = codes / dist.total(codes.sum())
    for _ in range(iterations):
        codes = codes / dist.total(codes.sum(dim=0)) / codes.shape[1]
        codes = codes / codes.sum(dim=1, keepdim=True) / samples
    return codes * samples
