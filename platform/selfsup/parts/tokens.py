"""The one form in which a token encoder sees any modality."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """value: (B, N, P) flattened patches. coord: (B, N, A) int64 grid position. valid: (B, N) bool, False: padding."""

    value: Tensor
    coord: Tensor
    valid: Tensor


def grouped(view: Tokens | Tensor, number: int, embed: Callable[[Tokens | Tensor], Tensor]) -> Tensor:
    """(B, ...) -> (B, ...): what `embed` gives for each of so many groups of samples, seen by itself.

    Then no batch statistics tell which key is a query's. MoCo (arXiv 1911.05722), section 3.3, shuffles among GPUs for
    that; groups do it on any number of processes.
    """
    groups = [
        view[start::number] if isinstance(view, Tensor) else Tokens(*(part[start::number] for part in view))
        for start in range(number)
    ]
    return torch.stack([embed(group) for group in groups], dim=1).flatten(0, 1)


def at(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, N, D), (M,) int64 -> (M, D): those of these numbers, counted through the batch."""
    return tokens.flatten(0, 1).index_select(0, places)
