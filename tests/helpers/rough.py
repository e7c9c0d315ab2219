"""What a step in bf16 computes in bf16 outside of layers, where rounding would be the loss's own."""

import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = {"__matmul__", "__rmatmul__", "addmm", "baddbmm", "bmm", "conv2d", "einsum", "linear", "matmul", "mm"}
REDUCTIONS = {"_log_softmax", "_softmax", "binary_cross_entropy_with_logits", "exp", "huber_loss", "linalg_vector_norm"}
REDUCTIONS |= {"log", "log1p", "log_sigmoid_forward", "logsumexp", "mean", "mse_loss", "nll_loss_forward", "norm"}
REDUCTIONS |= {"pow", "smooth_l1_loss", "std", "sum", "var"}


class RoughProducts(TorchFunctionMode):
    """A mode that lists products under autocast that functions of ours ask for, not layers: (module, function)."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[tuple[str, str]] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in PRODUCTS and torch.is_autocast_enabled("cpu"):
            frame: FrameType | None = sys._getframe(1)
            while frame and _is_torchs_function(frame):
                frame = frame.f_back
            if frame and frame.f_globals["__name__"].startswith("selfsup."):
                self.places.add((frame.f_globals["__name__"], frame.f_code.co_name))
        return func(*args, **kwargs or {})


def _is_torchs_function(frame: FrameType) -> bool:
    name: str = frame.f_globals["__name__"]
    return name.startswith("torch.") and not name.startswith("torch.nn.modules.")


class RoughReductions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that lists operators that reduce numbers in bf16, or take their logarithm, power or exponential."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name: str = func._schema.name.removeprefix("aten::")
        given = tree_leaves((args, kwargs))
        if name in REDUCTIONS and any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in given):
            self.names.add(name)
        return func(*args, **kwargs or {})
