"""A stand-in for a GPU: tensors on the device `meta` that compute on the CPU, and go with none of the CPU's own.

What a GPU refuses is an error here, too: arithmetic of both, `.numpy()`, draws by a generator of the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = "meta"
aten = torch.ops.aten
BETWEEN = {aten._to_copy.default, aten.copy_.default}  # from one device to the other
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # by numbers on the CPU, too


class Elsewhere(Tensor):
    """A tensor that says it is on PLACE. here: its values, on the CPU."""

    here: Tensor

    def __new__(cls, here: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(PLACE),
        )
        made.here = here
        return made

    def __init__(self, here: Tensor) -> None: ...

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return computed(func, args, kwargs or {})


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, those that make tensors among them. number: of those whose result is elsewhere."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = computed(func, args, kwargs or {})
        self.number += any(isinstance(leaf, Elsewhere) for leaf in tree_leaves(value))
        return value


class _Numbers(TorchFunctionMode):
    """Carries over numbers of Python, which torch would leave out of a tensor on the device `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            place = kwargs.pop("device")
            return func(*args, **kwargs).to(place)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(*args[1:], **({"dtype": args[0].dtype} | kwargs)).to(PLACE)
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].here.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = args[0], _numbered(args[1]), *args[2:]
        return func(*args, **kwargs)


def _numbered(index: Any) -> Any:
    """Return an index with tensors in place of lists."""
    if isinstance(index, tuple):
        return tuple(map(_numbered, index))
    return torch.tensor(list(index)) if isinstance(index, (list, range)) else index


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation makes of tensors here and elsewhere. Raises AssertionError where it mixes both."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    place = kwargs.get("device")
    is_there = (
        any(isinstance(one, Elsewhere) for one in tensors) if place is None else torch.device(place).type == PLACE
    )
    if is_there and func not in BETWEEN:
        own = tensors[:1] if func in INDEXING else tensors
        assert all(isinstance(one, Elsewhere) or not one.ndim for one in own), f"{func}: tensors on two devices"
        assert kwargs.get("generator") is None, f"{func}: a generator of the CPU draws on another device"
    kwargs = {name: torch.device("cpu") if name == "device" and value else value for name, value in kwargs.items()}
    value = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if func._schema.is_mutable and isinstance(value, Tensor):
        return kwargs.get("out", args[0])
    return tree_map(lambda leaf: Elsewhere(leaf) if is_there and isinstance(leaf, Tensor) else leaf, value)


def _here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def _without_grad(_: bool) -> torch.no_grad:
    return torch.no_grad()


@contextmanager
def elsewhere() -> Iterator[Any]:
    """Let tensors on PLACE be Elsewhere inside the block. Yields what counts the operations there, as `number`."""
    without_grad = mock.patch.object(torch._C, "_InferenceMode", new=_without_grad)  # inference takes no subclasses
    with without_grad, _Numbers(), _Operations() as operations:  # type: ignore[no-untyped-call]
        yield operations
