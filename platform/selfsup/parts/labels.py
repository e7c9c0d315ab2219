"""Losses of labelled samples, in fp32; a label of -1 says that a sample has none, and it does not count.

N: samples of this process, C: classes. Over W processes each returns its own share; the mean of the shares is the mean
over the labelled samples of the whole batch, however they are spread, and 0 where there are none.
"""

import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist


def cross_entropy(logits: Tensor, label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """(N, C), (N,) int64 -> (). smoothing: the share of the truth that is spread evenly over all classes."""
    each = F.cross_entropy(logits.float(), label, ignore_index=-1, label_smoothing=smoothing, reduction="none")
    return _share(each, label)


def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """(N, C), (N,) int64 -> (): the share of samples whose class is the likeliest."""
    return _share((logits.argmax(dim=1) == label).float(), label)


def _share(each: Tensor, label: Tensor) -> Tensor:
    """(N,), (N,) -> (): this process's part in the mean of what labelled samples have; `each` is 0 for the others"""
    counted = dist.mean((label >= 0).sum().float())
    return each.sum() / counted.clamp_min(1 / dist.world_size())
