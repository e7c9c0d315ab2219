from typing import Any

import torch
from timm.layers import DropPath
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.schedules import cosine, ramp


def test_a_teacher_is_the_mean_of_its_students_weighted_by_their_age() -> None:
    student = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    made = ema_copy(student)
    expected = [weight.detach().clone() for weight in student.parameters()]
    for momentum in (0.9, 0.5, 0.99):
        for weight in student.parameters():
            weight.data.add_(torch.randn_like(weight))
        ema_update(made, student, momentum)
        expected = [momentum * e + (1 - momentum) * w for e, w in zip(expected, student.parameters(), strict=True)]
    torch.testing.assert_close(list(made.parameters()), [e.detach() for e in expected])
    assert not any(weight.requires_grad for weight in made.parameters())
    student(torch.randn(4, 3))
    assert not made[1].running_mean.any()  # its own statistics


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that lists operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **kwargs or {})


def test_all_weights_move_at_once() -> None:
    """A kernel for many, not one for each, which is a launch for each on a GPU."""
    student = nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)))
    teacher = ema_copy(student)
    with Operators() as mode:
        ema_update(teacher, student, 0.9)
    assert mode.names == ["aten._foreach_lerp_.Scalar"]


def test_a_teacher_leaves_no_branch_out() -> None:
    made = ema_copy(nn.Sequential(DropPath(0.5)))
    x = torch.randn(64, 4)
    assert made.train()(x).equal(x)


def test_schedules_by_hand() -> None:
    assert [round(cosine(t, 0.99, 1.0), 6) for t in (0, 0.5, 1)] == [0.99, 0.995, 1.0]
    assert [round(ramp(t, 0.04, 0.07, 0.3), 6) for t in (0, 0.1, 0.3, 0.9)] == [0.04, 0.05, 0.07, 0.07]
    assert ramp(0.0, 0.04, 0.07, 0.0) == 0.07
