"""Collectives for objectives. In one process each is the identity; W processes hold equal numbers of rows.

Gradients follow from the loss that W processes minimise, the mean of theirs: DistributedDataParallel averages what
`backward` leaves in each, so W processes and one process on the whole batch end with the same gradient.
"""

from typing import Any

import torch
import torch.distributed
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """(N, ...) -> (W * N, ...): the rows of all processes in the order of their ranks; gradients flow back to each."""
    return x if world_size() == 1 else _Gather.apply(x)


def total(x: Tensor) -> Tensor:
    """Same shape: the sum over all processes, without gradient."""
    found = x.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(found)
    return found


def mean(x: Tensor) -> Tensor:
    """Same shape: the mean over all processes, without gradient."""
    return total(x) / world_size()


def largest(x: Tensor) -> Tensor:
    """Same shape: the greatest of all processes, without gradient."""
    found = x.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return found


def first(x: Tensor) -> Tensor:
    """Same shape: the first process's, without gradient."""
    found = x.detach().clone()
    if world_size() > 1:
        torch.distributed.broadcast(found, src=0)
    return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # noqa: ARG004 (the interface)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Tensor:  # noqa: ARG004 (the interface)
        """Every process has used every row, so a row's gradient is the sum of theirs."""
        total = grads[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        own: Tensor = total.chunk(world_size())[rank()]
        return own


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over the batch of all processes, with gradients, on any device: torch's own wants CUDA.

    Parameters, buffers and their names are those of torch's BatchNorm.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> "SyncBatchNorm":
        """The same layer, synchronised: it shares the parameters, so an optimizer that holds them stays valid."""
        made = cls(norm.num_features, norm.eps, norm.momentum, affine=False)
        made.affine, made.weight, made.bias = norm.affine, norm.weight, norm.bias
        made.track_running_stats, made.num_batches_tracked = norm.track_running_stats, norm.num_batches_tracked
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        return made.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch's name)
        """Any number of dimensions; channels are the second."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(N, C, ...) -> (N, C, ...)"""
        if not self.training or world_size() == 1:
            return super().forward(input)
        mean, var = _moments(input.float())
        self._track(mean, var, samples=world_size() * input.numel() // len(mean))
        across = (-1, *[1] * (input.ndim - 2))
        value = (input.float() - mean.view(across)) * (var + self.eps).rsqrt().view(across)
        if self.affine:
            value = value * self.weight.view(across) + self.bias.view(across)
        return value.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, *, samples: int) -> None:
        """As torch: the running variance is the unbiased one; without momentum, the plain average of all batches."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * samples / (samples - 1), share)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, ...) -> (C,), (C,): mean and biased variance over the batch of all processes, in one collective."""
    own = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    variances, means = gather(torch.stack(own)[None]).unbind(1)  # (W, C) each
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)  # within processes, and between them


def convert(module: nn.Module) -> None:
    """Synchronise every batch normalisation inside `module`, in place. On CUDA by torch's own layer.

    Raises NotImplementedError for a layer that does more than normalize, except on CUDA, where timm knows how.
    """
    if any(parameter.is_cuda for parameter in module.parameters()):
        convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, _BatchNorm) or isinstance(child, SyncBatchNorm):
                continue
            if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                raise NotImplementedError(f"{type(child).__name__} ({name}) cannot be synchronised over CPU workers")
            setattr(parent, name, SyncBatchNorm.of(child))
