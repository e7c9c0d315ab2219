"""A block in which nothing may read the values of tensors, for which a GPU would have to finish its work first."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # at which fake tensors give up, too
COPIES = Tensor.tolist, Tensor.numpy, Tensor.__array__  # by the host, past PyTorch's operators
INDEX = torch.ops.aten.index.Tensor  # by numbers it reads nothing


def is_mask(index: Tensor | None) -> bool:
    """Return whether a tensor that indexes does so by truth."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class ValueReadError(Exception):
    """An operation whose result, or the shape of it, depends on values."""


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that refuses operators that read."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if READS & set(func.tags) and (func is not INDEX or any(map(is_mask, args[1]))):
            raise ValueReadError(f"{func} waits for the device")
        return func(*args, **kwargs or {})


class Methods(TorchFunctionMode):
    """A mode that refuses copies to the host, but for those of tensors that are there."""

    def __init__(self, there: Collection[Tensor]) -> None:
        super().__init__()
        self.there = {id(tensor) for tensor in there}

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in COPIES and id(args[0]) not in self.there:
            raise ValueReadError(f"{func.__name__} waits for the device")
        if func is F.one_hot and len(args) == 2:  # checks its numbers on the CPU alone
            with _disable_current_modes():
                return func(*args)
        return func(*args, **kwargs or {})


@contextmanager
def unread(there: Collection[Tensor] = ()) -> Iterator[None]:
    """Raise ValueReadError where the block reads the values of a tensor. there: those that the host always has."""
    with Operators(), Methods(there):  # type: ignore[no-untyped-call]
        yield
