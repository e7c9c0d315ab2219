"""The one form in which a token encoder sees any modality."""

from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """value: (B, N, P) flattened patches. coord: (B, N, A) int64 grid position. valid: (B, N) bool, False: padding."""

    value: Tensor
    coord: Tensor
    valid: Tensor


def strided(view: Tokens | Tensor, start: int, step: int) -> Tokens | Tensor:
    """Every `step`-th sample of a view."""
    return view[start::step] if isinstance(view, Tensor) else Tokens(*(part[start::step] for part in view))


def at(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, N, D), (B, M) int64 -> (B, M, D): those of these numbers."""
    return tokens.take_along_dim(places[..., None], dim=1)
