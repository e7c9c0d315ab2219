"""Which tokens an encoder keeps. B: batch, N: tokens, K: kept tokens."""

from typing import NamedTuple

from torch import Tensor


class Mask(NamedTuple):
    """keep: (B, K) int64, the kept tokens. restore: (B, N) int64, where each token stands in [kept, removed].

    removed: (B, N) bool.
    """

    keep: Tensor
    restore: Tensor
    removed: Tensor


def random_mask(noise: Tensor, ratio: float) -> Mask:
    """(B, N) -> Mask: the int(N * (1 - ratio)) tokens of least noise are kept, in the order of their noise.

    MAE (arXiv 2111.06377), section 3, "Simple implementation". noise is uniform.
    """
    num_tokens = noise.shape[1]
    num_keep = int(num_tokens * (1 - ratio))
    assert 0 < num_keep < num_tokens, f"mask ratio {ratio} keeps {num_keep} of {num_tokens} tokens"
    shuffle = noise.argsort(dim=1, stable=True)  # stable: equal noise gives the same mask on every device
    restore = shuffle.argsort(dim=1)
    return Mask(keep=shuffle[:, :num_keep], restore=restore, removed=restore >= num_keep)
