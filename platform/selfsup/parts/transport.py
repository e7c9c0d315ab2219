"""Optimal transport between two sets of vectors of a sample, by which UNITER aligns words and regions.

B: samples, M, N: vectors of either set, D: channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts.precision import no_autocast

BETA, ITERATIONS = 0.5, 50  # of UNITER's code: how far a plan moves at once, and how often


def distance(x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    """(B, M, D), (B, N, D), (B, M) bool -> (B,): the mean cosine distance of what is moved, of the valid x to all y.

    Chen et al., "UNITER: universal image-text representation learning", ECCV 2020, arXiv:1909.11740, section 3.2; no
    gradient flows through the plan.
    """
    with no_autocast(x):
        cost = 1 - F.normalize(x.float(), dim=2) @ F.normalize(y.float(), dim=2).mT
        moved: Tensor = (cost * plan(cost, valid)).sum((1, 2))
    return moved


@torch.no_grad()
def plan(cost: Tensor, valid: Tensor) -> Tensor:
    """(B, M, N), (B, M) bool -> (B, M, N): how much goes where: equal shares of each valid row, and of each column.

    IPOT: Xie, Wang, Wang and Zha, "A fast proximal point method for computing exact Wasserstein distance", UAI 2020,
    arXiv:1802.04307, algorithm 1 with one inner step. Rows that are not valid are zero, and so are all where none is.
    """
    moved = valid[..., None].to(cost).expand_as(cost)
    kernel = torch.exp(-cost / BETA) * moved
    share = valid.to(cost) / valid.sum(1, keepdim=True).clamp_min(1)
    row = share
    for _ in range(ITERATIONS):
        near = kernel * moved
        column = 1 / cost.shape[2] / torch.einsum("bmn,bm->bn", near, row)
        row = (share / torch.einsum("bmn,bn->bm", near, column)).where(valid, 0.0)
        moved = row[..., None] * near * column[:, None]
    return moved.where(valid[..., None], 0.0)
