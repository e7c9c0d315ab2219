"""Cosines to features that may lie on disk: none of them is copied. N: features, M: queries, D: channels."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-12  # a shorter feature has no direction


class Directions:
    """N features by their directions. value: (N, D)."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._length = torch.linalg.vector_norm(value, dim=1).clamp_min(EPSILON)

    def __len__(self) -> int:
        return len(self.value)

    def cosines(self, query: Tensor) -> Tensor:
        """(M, D) -> (M, N)"""
        return (F.normalize(query, eps=EPSILON) @ self.value.T).div_(self._length)
