"""Label-free signs of collapse, of a batch of embeddings. N: samples, D: channels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_std(z: Tensor) -> Tensor:
    """(N, D) -> (): deviation of unit-length embeddings: 0 when all are one, 1 when they fill the sphere.

    SimSiam (arXiv 2011.10566), section 4.1: the mean over channels, here times sqrt(D).
    """
    unit = F.normalize(z.float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(z.shape[1])


def rankme(z: Tensor, *, epsilon: float = 1e-7) -> Tensor:
    """(N, D) -> (): effective rank, from 1 to min(N, D): the exponential of the entropy of the singular values.

    RankMe (arXiv 2210.02885), eq. 1 and 2.
    """
    values = torch.linalg.svdvals(z.float())
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + epsilon
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()
