"""Fully sharded data parallelism: each worker keeps a part of every weight, of its gradient and of its moments.

Rajbhandari, Rasley, Ruwase and He, "ZeRO: Memory optimizations toward training trillion parameter models", 2019,
arXiv:1910.02054, stage 3, as PyTorch's `fully_shard` has it. The units of a method are gathered one by one when they
compute, forward and backward; what lies outside of them, with the method.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import SGD, Optimizer
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only, tree_map_with_path

from selfsup.errors import SpecError
from selfsup.parts import dist
from selfsup.parts.units import units


def shard(method: nn.Module, optimizer: Optimizer) -> None:
    """Divide the weights of a method, and the moments of its optimizer, in place, among all workers.

    Raises SpecError for a method with a weight that is a single number without an axis.
    """
    if scalars := [name for name, weight in method.named_parameters() if weight.ndim == 0]:
        raise SpecError(
            f"{scalars[0]} of the objective is a scalar, which cannot be divided; leave it out", "train.sharding"
        )
    weights = list(method.parameters())
    assert torch.distributed.group.WORLD is not None
    mesh = DeviceMesh.from_group(torch.distributed.group.WORLD, weights[0].device.type)
    for unit in [*units(method), method]:
        fully_shard(unit, mesh=mesh)
    parts: dict[Tensor, DTensor] = dict(zip(weights, method.parameters(), strict=True))  # type: ignore[arg-type]
    for group in optimizer.param_groups:
        group["params"] = [parts[weight] for weight in group["params"]]
        if isinstance(optimizer, SGD):
            group["fused"] = False
    moments: dict[Tensor, dict[str, Any]] = {
        parts[weight]: {name: _like(value, parts[weight]) for name, value in state.items()}
        for weight, state in optimizer.state.items()
    }
    optimizer.state = defaultdict(dict, moments)


def _like(moment: Any, part: DTensor) -> Any:
    """Return this worker's part of a moment that has the shape of its weight; another value as it is."""
    if getattr(moment, "shape", None) != part.shape:
        return moment
    return distribute_tensor(moment, part.device_mesh, part.placements, src_data_rank=None)


def whole(state: Any) -> Any:
    """Return a state with tensors of the parts of all workers, who all call it; None for each, but in the first one."""
    return tree_map_only(DTensor, _first, state)


def _first(part: DTensor) -> Tensor | None:
    tensor = full(part)
    return None if dist.rank() else tensor.cpu()


def divided(state: Any) -> dict[str, DTensor]:
    """Return the tensors of a state that are divided among workers, by their places in it."""
    leaves, _ = tree_flatten_with_path(state)
    return {keystr(place): leaf for place, leaf in leaves if isinstance(leaf, DTensor)}


def own(state: Any) -> Any:
    """Return a state with this worker's parts in place of tensors that are divided, on the CPU."""
    return tree_map_only(DTensor, lambda part: part.to_local().cpu(), state)


def joined(state: Any, others: Sequence[Mapping[str, Tensor]]) -> Any:
    """Return the whole of a state of which the first worker has its `own`. others: parts of the others, in order."""

    def join(place: Any, value: Any) -> Any:
        name = keystr(place)
        return torch.cat([value, *(parts[name] for parts in others)]) if name in others[0] else value

    return tree_map_with_path(join, state) if others else state


def full(x: Tensor) -> Tensor:
    """Return a tensor of the parts of all workers, which all call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """-> (tensors,): the norm of each; squares are added in fp64, so that parts leave no trace. All workers call it."""
    squares = torch.stack(torch._foreach_norm([_part(x) for x in tensors], dtype=torch.float64)).square()
    whole = dist.total(squares) if isinstance(tensors[0], DTensor) else squares
    return whole.sqrt().to(tensors[0].dtype)


def _part(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Let the weights of a method that are in no unit, or of a unit, be whole inside the block.

    For what computes with them elsewhere than in the module's own forward.
    """
    if isinstance(module, FSDPModule):
        module.unshard()
    yield
    if isinstance(module, FSDPModule):
        module.reshard()
