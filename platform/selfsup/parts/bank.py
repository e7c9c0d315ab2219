"""Memories of embeddings, the same in all processes: a queue of the latest ones, and a bank with one per sample.

D: channels, N: rows of this process.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts import dist


class Queue(nn.Module):
    """The latest `length` rows, in `rows` (length, D), unit vectors. At first they are random; none is `filled`."""

    rows: Tensor
    place: Tensor  # () where the next row goes
    filled: Tensor  # () rows that were pushed, at most length

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest rows by these (N, D) of all processes."""
        new, length = dist.gather(rows.detach())[-len(self.rows) :], len(self.rows)
        where = (self.place + torch.arange(len(new), device=new.device)) % length
        self.rows.index_copy_(0, where, new.to(self.rows.dtype))
        self.place.add_(len(new)).remainder_(length)
        self.filled.add_(len(new)).clamp_max_(length)


class Bank(nn.Module):
    """A row for each sample of the data set, in `rows` (samples, D), unit vectors if `unit`; at first random."""

    rows: Tensor

    def __init__(self, samples: int, dim: int, *, unit: bool = True) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("rows", F.normalize(torch.randn(samples, dim), dim=1))

    @torch.no_grad()
    def put(self, sample: Tensor, rows: Tensor, *, momentum: float = 0.0) -> None:
        """Set rows (N, D) of samples (N,) of all processes to momentum * the old + (1 - momentum) * the new."""
        where, new = dist.gather(sample), dist.gather(rows.detach()).to(self.rows.dtype)
        if momentum:
            new = torch.lerp(self.rows[where], new, 1 - momentum)
        self.rows.index_copy_(0, where, F.normalize(new, dim=1) if self.unit else new)
