"""Collectives for objectives. In one process each is the identity; W processes hold equal numbers of rows.

Gradients follow from the loss that W processes minimize, the mean of theirs: DistributedDataParallel averages what
`backward` leaves in each, so W processes and one process on the whole batch end with the same gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ProcessGroup

_is_alone = ContextVar("is_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Let this process be the only one inside the block: where one of several evaluates, and the others wait for it."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def world_size(group: ProcessGroup | None = None) -> int:
    return torch.distributed.get_world_size(group) if _has_others() else 1


def rank() -> int:
    return torch.distributed.get_rank() if _has_others() else 0


def _has_others() -> bool:
    return torch.distributed.is_initialized() and not _is_alone.get()


def peers(groups: int) -> ProcessGroup:
    """Return this process's one of `groups` groups, each of consecutive ranks. All processes call it together."""
    size = world_size() // groups
    ranks = [list(range(first, first + size)) for first in range(0, world_size(), size)]
    own = [torch.distributed.new_group(members) for members in ranks][rank() // size]
    assert isinstance(own, ProcessGroup)
    return own


def gather(x: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """(N, ...) -> (W * N, ...): the rows of all processes in the order of their ranks; gradients flow back to each.

    group: the processes that take part, W of them; all if None.
    """
    return x if world_size(group) == 1 else _Gather.apply(x, group)


def total(x: Tensor) -> Tensor:
    """Return the sum over all processes, of the shape of x, without gradient."""
    result = x.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(result)
    return result


def mean(x: Tensor) -> Tensor:
    """Return the mean over all processes, of the shape of x, without gradient."""
    return total(x) / world_size()


def average(x: Tensor) -> Tensor:
    """Return the mean over all processes, of the shape of x; gradients flow back to each."""
    return x if world_size() == 1 else _Average.apply(x)


def largest(x: Tensor) -> Tensor:
    """Return the maximum over all processes, elementwise, without gradient."""
    result = x.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(result, torch.distributed.ReduceOp.MAX)
    return result


def first(x: Tensor) -> Tensor:
    """Return the tensor of the first process, which has the shape of x, without gradient."""
    result = x.detach().clone()
    if world_size() > 1:
        torch.distributed.broadcast(result, src=0)
    return result


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size(group))]
        torch.distributed.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        """Sum over processes, since every process has used every row; return the part of this process's rows."""
        total = grads[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=ctx.group)
        return total.chunk(world_size(ctx.group))[torch.distributed.get_rank(ctx.group)], None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return mean(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:  # noqa: ARG004
        """Average over processes, since every process has used the mean, of which its own x is a part of W."""
        return mean(grads[0])
