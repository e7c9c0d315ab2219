"""Views of several sizes through one encoder: those of one size in one call, which is faster and one batch to it.

Multi-crop: SwAV (arXiv 2006.09882), section 3.2.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from selfsup.parts.tokens import Tokens

View = Tokens | Tensor


class Pools(Protocol):
    """What an Encoder can, of which parts know nothing else."""

    def pooled(self, view: View) -> Tensor: ...


def pooled(encoder: Pools, views: Sequence[View]) -> list[Tensor]:
    """Views of (B, ...) -> of each, in their order, (B, D). Batch normalisation sees all views of a size together."""
    by_size: dict[torch.Size, list[int]] = {}
    for number, view in enumerate(views):
        by_size.setdefault(_shape(view), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in by_size.values():
        together = encoder.pooled(joined([views[number] for number in numbers]))
        found.update(zip(numbers, together.chunk(len(numbers)), strict=True))
    return [found[number] for number in range(len(views))]


def joined(views: Sequence[View]) -> View:
    """V views of (B, ...), of one size -> (V * B, ...), one view after the other."""
    images = [view for view in views if isinstance(view, Tensor)]
    if images:
        return torch.cat(images)
    tokens = [view for view in views if isinstance(view, Tokens)]
    return Tokens(*(torch.cat(parts) for parts in zip(*tokens, strict=True)))


def _shape(view: View) -> torch.Size:
    return view.shape if isinstance(view, Tensor) else view.value.shape
