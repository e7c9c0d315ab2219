"""Which tokens an encoder keeps. B: batch, N: tokens, K: kept tokens."""

from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """keep: (B, K) int64, numbers of the tokens that the encoder sees. hide: (B, N - K) int64, those of all others."""

    keep: Tensor
    hide: Tensor

    @property
    def restore(self) -> Tensor:
        """(B, N) int64: where each token stands in [keep, hide]."""
        return torch.cat(self, dim=1).argsort(dim=1)

    @property
    def removed(self) -> Tensor:
        """(B, N) bool"""
        return self.restore >= self.keep.shape[1]


def random_mask(noise: Tensor, ratio: float) -> Mask:
    """(B, N) -> Mask: the int(N * (1 - ratio)) tokens of least noise are kept, in the order of their noise.

    MAE (arXiv 2111.06377), section 3, "Simple implementation". noise is uniform.
    """
    num_tokens = noise.shape[1]
    num_keep = int(num_tokens * (1 - ratio))
    assert 0 < num_keep < num_tokens, f"mask ratio {ratio} keeps {num_keep} of {num_tokens} tokens"
    shuffle = noise.argsort(dim=1, stable=True)  # stable: equal noise gives the same mask on every device
    return Mask(keep=shuffle[:, :num_keep], hide=shuffle[:, num_keep:])
