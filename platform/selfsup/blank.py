"""Models without memory, for plans: on torch's meta device, where initial weights are not drawn either."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

FILLING = {
    *(init.constant_, init.kaiming_normal_, init.kaiming_uniform_, init.normal_, init.uniform_),
    *(Tensor.add_, Tensor.clamp_, Tensor.div_, Tensor.erfinv_, Tensor.fill_, Tensor.mul_, Tensor.normal_),
    *(Tensor.sub_, Tensor.uniform_, Tensor.zero_),
}


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are that numbers are to fill, whose work in Python is most of a model's on this device."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in FILLING:
            tensor, *others = *args, *kwargs.values()
            if tensor.is_meta and not any(isinstance(value, Tensor) for value in others):
                return tensor
        return function(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Make the tensors of a block on the meta device."""
    with torch.device("meta"), _Unfilled():
        yield
