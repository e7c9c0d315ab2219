"""Batch normalization over the batch of all processes, or over groups of its samples.

N: rows of this process, C: channels. Parameters, buffers and their names stay those of torch's BatchNorm.
"""

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup.parts import dist

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # layers that normalize and do no more


class _AnyRank(_BatchNorm):
    """Batch normalization of inputs with any number of dimensions, of which channels are the second."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> Self:
        """Return a layer of this class that shares the parameters, so that an optimizer that holds them stays valid."""
        layer = cls(norm.num_features, norm.eps, norm.momentum, affine=False)
        layer.affine, layer.weight, layer.bias = norm.affine, norm.weight, norm.bias
        layer.track_running_stats, layer.num_batches_tracked = norm.track_running_stats, norm.num_batches_tracked
        layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
        return layer.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch's name)
        """Accept any number of dimensions; channels are the second."""

    def _share(self) -> float:
        """Count a batch; return its weight in the running statistics. Without momentum all batches weigh the same."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


class SyncBatchNorm(_AnyRank):
    """Batch normalization over the batch of several processes, with gradients, on any device: torch's own wants CUDA.

    peers: the processes; all if None.
    """

    peers: ProcessGroup | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(N, C, ...) -> (N, C, ...)"""
        world = dist.world_size(self.peers)
        if not self.training or world == 1:
            return super().forward(input)
        mean, var = self._moments(input.float())
        self._track(mean, var, samples=world * input.numel() // len(mean))
        across = (-1, *[1] * (input.ndim - 2))
        value = (input.float() - mean.view(across)) * (var + self.eps).rsqrt().view(across)
        if self.affine:
            value = value * self.weight.view(across) + self.bias.view(across)
        return value.to(input.dtype)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, ...) -> (C,), (C,): mean and biased variance over the batch of the processes, in one collective."""
        own = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
        variances, means = dist.gather(torch.stack(own)[None], self.peers).unbind(1)  # (W, C) each
        mean = means.mean(0)
        return mean, (variances + (means - mean).square()).mean(0)  # within processes, and between them

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, *, samples: int) -> None:
        """Update the running statistics; as in torch, the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        share = self._share()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * samples / (samples - 1), share)


class GroupedBatchNorm(_AnyRank):
    """Batch normalization of G groups of rows, each by itself.

    run: rows that belong to one group; the next ones belong to the next group, and after the last to the first again.
    Running statistics are the mean over groups.
    """

    groups: int
    run: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(N, C, ...) -> (N, C, ...)"""
        if not self.training:
            return super().forward(input)
        apart = input.view(-1, self.groups, self.run, *input.shape[1:]).transpose(1, 2)
        # (N / (G * run), run, G, C, ...)
        side_by_side = apart.flatten(0, 1).flatten(1, 2)  # (N / G, G * C, ...): groups as channels
        value = self._normalized(side_by_side).view(apart.shape)
        return value.transpose(1, 2).reshape(input.shape)

    def _normalized(self, x: Tensor) -> Tensor:
        """(N / G, G * C, ...) -> the same shape"""
        weight, bias, mean, var = (
            None if part is None else part.repeat(self.groups)
            for part in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        share = 0.0 if mean is None else self._share()
        value = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=share, eps=self.eps)
        for own, tiled in ((self.running_mean, mean), (self.running_var, var)):
            if own is not None and tiled is not None:
                own.copy_(tiled.view(self.groups, -1).mean(0))
        return value


def convert(module: nn.Module, groups: int = 1, run: int = 1) -> None:
    """Normalize inside `module`, in place, over the batch of all processes, or over each of `groups` groups of it.

    A group is of `run` consecutive samples of the batch that all processes have, one after another, in each of its
    views: so of the same ones on any number of processes that divides the number of groups, or is a multiple of it.
    Raises NotImplementedError for a layer that does more than normalize, except on CUDA, where timm knows how.
    """
    world, cuda = dist.world_size(), any(weight.is_cuda for weight in module.parameters())
    peers = dist.peers(groups) if 1 < groups < world else None
    for parent, name, norm in list(_norms(module)):
        if getattr(norm, "alike", False):
            continue
        whole = groups == 1 or getattr(norm, "whole", False)
        if not (whole and cuda) and type(norm) not in PLAIN:
            raise NotImplementedError(f"{type(norm).__name__} ({name}) can be neither synchronized on CPUs nor grouped")
        if whole or peers:
            setattr(parent, name, _synchronized(norm, None if whole else peers, cuda=cuda))
        elif groups > world:
            setattr(parent, name, _grouped(norm, groups // world, run))


def keep_whole(module: nn.Module) -> None:
    """Let `convert` leave the layers inside `module` out of its groups: they normalize over all processes."""
    for _, _, norm in _norms(module):
        norm.whole = True  # type: ignore[assignment]


def keep_alike(module: nn.Module) -> None:
    """Let `convert` leave the layers inside `module` as they are: all processes give them the same rows."""
    for _, _, norm in _norms(module):
        norm.alike = True  # type: ignore[assignment]


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Set the running statistics of all processes, in place, to their mean: that of all groups."""
    statistics = [(norm.running_mean, norm.running_var) for _, _, norm in _norms(module)]
    buffers = [buffer for pair in statistics for buffer in pair if buffer is not None]
    if buffers:
        means = torch.split(dist.mean(torch.cat(buffers)), [len(buffer) for buffer in buffers])
        torch._foreach_copy_(buffers, list(means))


def _norms(module: nn.Module) -> Iterator[tuple[nn.Module, str, _BatchNorm]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                yield parent, name, child


def _synchronized(norm: _BatchNorm, peers: ProcessGroup | None, *, cuda: bool) -> nn.Module:
    if cuda:
        layer: nn.Module = convert_sync_batchnorm(norm, peers)  # type: ignore[no-untyped-call]
        return layer
    synchronized = SyncBatchNorm.of(norm)
    synchronized.peers = peers
    return synchronized


def _grouped(norm: _BatchNorm, groups: int, run: int) -> nn.Module:
    layer = GroupedBatchNorm.of(norm)
    layer.groups, layer.run = groups, run
    return layer
