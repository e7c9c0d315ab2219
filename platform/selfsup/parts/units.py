"""Blocks of models, which are compiled, and computed once more for the gradient, one by one.

A unit is an item of a sequence of layers that are not PyTorch's own, and in which there is no such sequence: a block of
a ViT, of a decoder, of a ResNet, a Swin or a ConvNeXt. Weights, and their names, stay what they are.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selfsup.errors import SpecError
from selfsup.parts.pieces import untouched

VARIANTS = 8  # of a unit: shapes, training or evaluation, with gradients or without
DRAWS = {"fallback_random": True}  # drop-path's draws are those of PyTorch's generators, as without a compiler


def units(module: nn.Module) -> list[nn.Module]:
    """Return the units inside a module, in its order."""
    inner = [unit for child in module.children() for unit in units(child)]
    items = list(module.children())
    if not inner and isinstance(module, nn.Sequential | nn.ModuleList) and all(map(_is_own, items)):
        return items
    return inner


def _is_own(layer: nn.Module) -> bool:
    """Return whether a layer with weights is none of PyTorch's own."""
    return not type(layer).__module__.startswith("torch.nn.") and any(True for _ in layer.parameters())


def has_statistics(unit: nn.Module) -> bool:
    """Return whether a forward pass moves running statistics of a unit, which no compiler can do but once."""
    return any(isinstance(layer, _BatchNorm) for layer in unit.modules())


def compile_units(module: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the units inside a module, in place, when they are first called: equal ones share their graphs.

    Each rate of drop-path has a graph of its own. Raises SpecError where there is no compiler.
    """
    blocks = units(module)
    if backend == "inductor":
        _check_compiler()
    options: dict[str, Any] = DRAWS if backend == "inductor" else {}
    for unit in blocks:
        unit.compile(backend=backend, options=options, recompile_limit=VARIANTS * len(blocks))


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise SpecError("torch.compile finds no C++ compiler; install g++, or leave it out", "train.compile") from error


def recompute(module: nn.Module) -> None:
    """Let the units inside a module that are trained, in place, keep for the backward pass only what they are given.

    Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016, arXiv:1604.06174. Each is
    computed twice, with the same draws; running statistics move once.
    """
    for unit in units(module):
        if any(weight.requires_grad for weight in unit.parameters()):
            unit.forward = _twice(unit, unit.forward)


def _twice(unit: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    contexts: dict[str, Any] = {"context_fn": partial(_contexts, unit)} if has_statistics(unit) else {}

    def recomputed(*given: Any, **options: Any) -> Any:  # a function of this module, which a compiler looks into
        return checkpoint(forward, *given, use_reentrant=False, **contexts, **options)

    return recomputed


def _contexts(unit: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what surrounds the first computation of a unit, and the second."""
    return nullcontext(), untouched(unit)
