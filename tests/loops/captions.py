"""CLIP, as the authors of SLIP train it, at the settings of its recipe."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import Move, adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe
from .teachers import matrices

TOWERS = {"image": "encoders.image", "text": "encoders.text", "projections": "projections", "logits": "logits"}


def embedded(student: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
    """-> unit vectors of the first view and of the caption"""
    views = {"image": batch.views[0].value, "text": batch.views[-1].value}
    image, text = (student["projections"][name](student[name].pooled(view)) for name, view in views.items())
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def symmetric(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Figure 3 of CLIP's paper."""
    logits = scale * image @ text.T
    return -(logits.log_softmax(dim=1).diagonal().mean() + logits.log_softmax(dim=0).diagonal().mean()) / 2


def clamped(student: nn.ModuleDict, move: Move) -> Move:
    """Return a step after which the scale is at most 100."""

    def step(number: int) -> None:
        move(number)
        student["logits"].log_scale.clamp_(max=math.log(100))

    return step


def clip(method: Method, batches: list[Batch]) -> Trained:
    student = copied(method, TOWERS)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return symmetric(*embedded(student, batch), student["logits"].log_scale.exp())

    move = adamw(
        student,
        warm(5e-4, begin=1e-6, end=1e-5),
        lambda _, name, weight: 0.5 * matrices(name, weight),
        betas=(0.9, 0.98),
    )
    losses, _ = learn(student, loss, batches, clamped(student, move))
    return trained(losses, named(student, TOWERS))


LOOPS = {"clip": of_recipe("yfcc15m/clip", clip, "vit", dim=16)}
