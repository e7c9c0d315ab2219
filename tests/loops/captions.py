"""CLIP and SLIP, as the authors of SLIP train them, and SigLIP, at the settings of their recipes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import Move, adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe

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

    losses, _ = learn(student, loss, batches, clamped(student, of_slip(student, 5e-4, 0.5)))
    return trained(losses, named(student, TOWERS))


def siglip(method: Method, batches: list[Batch]) -> Trained:
    """Algorithm 1 of SigLIP's paper: every pair of the batch is one or none."""
    student = copied(method, TOWERS)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        image, text = embedded(student, batch)
        logits = student["logits"].log_scale.exp() * image @ text.T + student["logits"].bias
        labels = 2 * torch.eye(len(image), dtype=logits.dtype) - 1
        return -torch.log(torch.sigmoid(labels * logits)).sum() / len(image)

    move = adamw(student, warm(1e-3), lambda _, __, weight: 1e-4 * (weight.ndim > 1), betas=(0.9, 0.95))
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, TOWERS))


def slip(method: Method, batches: list[Batch]) -> Trained:
    """CLIP's loss, and SimCLR's as SLIP's authors write it: each view among the other views, in both directions."""
    names = TOWERS | {"projector": "projector"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        views = [student["projector"](student["image"].pooled(view.value)) for view in batch.views[1:3]]
        a, b = (F.normalize(view, dim=1) for view in views)
        own, places, same = 1e9 * torch.eye(len(a), dtype=a.dtype), torch.arange(len(a)), a.new_zeros(())
        for one, other in ((a, b), (b, a)):
            logits = torch.cat([one @ other.T / 0.1, one @ one.T / 0.1 - own], dim=1)
            same = same + F.cross_entropy(logits, places) / 2
        return symmetric(*embedded(student, batch), student["logits"].log_scale.exp()) + same

    losses, _ = learn(student, loss, batches, clamped(student, of_slip(student, 3e-3, 0.1)))
    return trained(losses, named(student, names))


def of_slip(student: nn.ModuleDict, peak: float, decay: float) -> Move:
    rate = warm(peak, begin=1e-6, end=1e-5)
    return adamw(student, rate, lambda _, __, weight: decay * (weight.ndim > 1), betas=(0.9, 0.98))


LOOPS = {
    "clip": of_recipe("yfcc15m/clip", clip, "vit", dim=16),
    "siglip": of_recipe("yfcc15m/siglip", siglip, "vit", dim=16),
    "slip": of_recipe("yfcc15m/slip", slip, "vit", dim=16, ssl_hidden=64, ssl_dim=16),
}
