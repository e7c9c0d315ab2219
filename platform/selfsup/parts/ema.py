"""A copy of a module that follows it slowly: what momentum encoders, targets and teachers are."""

import copy
from typing import TypeVar

import torch
from timm.layers.drop import DropPath
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def teacher(student: Module) -> Module:
    """At the student's weights; never trained, and without drop-path."""
    made = copy.deepcopy(student).requires_grad_(False)
    for module in made.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return made


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Each parameter becomes momentum * itself + (1 - momentum) * the student's; buffers stay the teacher's own."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
