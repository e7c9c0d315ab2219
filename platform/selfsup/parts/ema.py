"""Exponential moving averages (EMA) of modules: momentum encoders, targets and teachers."""

import copy
from typing import TypeVar

import torch
from timm.layers.drop import DropPath
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def ema_copy(student: Module) -> Module:
    """Copy a module with its weights, without gradients and without drop-path."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return teacher


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set each parameter to momentum * itself + (1 - momentum) * the student's; buffers stay the teacher's own."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
