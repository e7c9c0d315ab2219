"""Loss and accuracy of labelled samples, in fp32. Samples labelled -1 have no class and do not count.

N: samples of this process, C: classes. Over W processes each returns its own share; the mean of the shares is the mean
over the labelled samples of the whole batch, however they are spread, and 0 where there are none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist


def cross_entropy(logits: Tensor, label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """(N, C), (N,) int64 -> (): cross-entropy. smoothing: the share of the target that is spread over all classes."""
    losses = F.cross_entropy(logits.float(), label, ignore_index=-1, label_smoothing=smoothing, reduction="none")
    return _share(losses, label)


def soft_cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """(N, C), (N, C), (N,) bool -> (): cross-entropy with shares of classes. counted: the samples that have any."""
    losses = -(target * logits.float().log_softmax(dim=1)).sum(dim=1)
    return _share(losses * counted, counted.long() - 1)


def tagged(logits: Tensor, tags: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C), (N, K) int64, (N, K) bool -> (), (): cross-entropy, where a sample's classes have equal shares; and the
    share of samples whose likeliest class is one of theirs.

    tags: of a sample, different where they are valid. Samples without any do not count.
    """
    given = torch.zeros_like(logits.float())
    given = given.scatter_add(1, tags, valid.to(given))
    has, number = valid.any(dim=1), valid.sum(dim=1, keepdim=True)
    right = given.take_along_dim(logits.argmax(dim=1, keepdim=True), dim=1)[:, 0]
    return soft_cross_entropy(logits, given / number.clamp_min(1), has), _share(right, has.long() - 1)


def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """(N, C), (N,) int64 -> (): the share of samples whose class is the likeliest."""
    return _share((logits.argmax(dim=1) == label).float(), label)


def _share(values: Tensor, label: Tensor) -> Tensor:
    """(N,), (N,) -> (): this process's share of the mean over labelled samples; values of the others are 0"""
    counted = dist.mean((label >= 0).sum().float())
    return values.sum() / counted.clamp_min(1 / dist.world_size())
