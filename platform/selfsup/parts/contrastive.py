"""One contrast each, in fp32 whatever precision the step has. N: samples of this process, D: channels.

Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D) -> (): each view picks its partner out of all other views of the batch, by cosine similarity.

    SimCLR (arXiv 2002.05709), eq. 1 averaged over the 2N views; the authors' code has twice that.
    """
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    views, others = torch.cat([a, b]), torch.cat([dist.gather(a), dist.gather(b)])
    with no_autocast(a):
        logits = views @ others.T / temperature
    total = len(others) // 2
    own = torch.arange(len(a), device=a.device) + dist.rank() * len(a)  # where this process's samples stand in `others`
    itself, partner = torch.cat([own, own + total]), torch.cat([own + total, own])
    return F.cross_entropy(logits.scatter(1, itself[:, None], -torch.inf), partner)


def nt_xent_chance(a: Tensor) -> Tensor:
    """(N, D) -> (): `nt_xent` of embeddings that are all the same: ln(2N - 1), N over all processes."""
    return a.new_full((), math.log(2 * len(a) * dist.world_size() - 1), dtype=torch.float32)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D), (K, D) -> (): each query picks its key out of that and the queue; key and queue are unit vectors.

    MoCo (arXiv 1911.05722), eq. 1.
    """
    query = F.normalize(query.float(), dim=1)
    with no_autocast(query):
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def no_autocast(x: Tensor) -> AbstractContextManager[None]:
    kind = x.device.type
    return (
        torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
    )  # not on meta
