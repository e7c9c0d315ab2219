"""LeJEPA and VISReg, whose embeddings become Gaussian along random directions, and SimDINO and SimDINOv2, whose
features fill their space, at the settings of their recipes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.noise import gaussian

from .authors import adamw, copied, cosine, learn, named, to_one, trained, warm
from .ours import Trained
from .recipes import of_recipe
from .teachers import Masking, dinov2_scale, matrices

NAMES = {"backbone": "encoders.image", "projector": "projector"}
HEADS = {"backbone": "encoders.image", "head": "head"}
DOUBLE = torch.float64
OfViews = Callable[[list[Tensor], Tensor], Tensor]  # of the views' embeddings, and the step's directions


def draws(method: Method, step: int) -> Tensor:
    return torch.tensor([[method.draws[0, 0].item(), step * 2.0**-24]], dtype=DOUBLE)


def along(method: Method, step: int) -> Tensor:
    """-> (16, 32): the directions of a step, of length 1, whose draws are the first's seed and the step's number."""
    drawn = gaussian(draws(method, step), (16, 32))[0]
    return drawn / drawn.square().sum(dim=0).sqrt()


def by_layer(name: str) -> float:
    """The rate of a weight at a decay of 0.9 a layer, for two blocks and the embedding."""
    if not name.startswith("backbone") or ".trunk.norm." in name:
        return 1.0
    return 0.9 ** (2 - int(name.split(".blocks.")[1][0])) if ".blocks." in name else 0.9**3


def lejepa(method: Method, batches: list[Batch]) -> Trained:
    """Characteristic functions as means of complex numbers, by the trapezoidal rule from -3 to 3."""
    student, t = copied(method, NAMES), torch.linspace(-3, 3, 33, dtype=DOUBLE)
    bell, widths = torch.exp(-t * t / 2), torch.full((33,), 6 / 32, dtype=DOUBLE)
    widths[[0, -1]] /= 2

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        pooled = torch.cat([student["backbone"].pooled(view.value) for view in batch.views])
        views = student["projector"](pooled).chunk(4)
        center, total = (views[0] + views[1]) / 2, torch.zeros((), dtype=DOUBLE)
        for z in views:
            c = torch.exp(1j * (z @ along(method, step))[:, :, None] * t).mean(dim=0)
            statistic = 8 * ((c - bell).abs().square() * bell * widths).sum(dim=1)
            total = total + (0.95 * (z - center).square().mean() + 0.05 * statistic.mean()) / 4
        return total

    clip = lambda: nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    undecayed = ("cls_token", "pos_embed")
    decay = lambda _, name, weight: 0.05 * (weight.ndim > 1 and not name.endswith(undecayed))  # noqa: E731
    move = adamw(student, warm(5e-4 * 4, end=1e-6), decay, scale=by_layer, clip=clip)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, NAMES) | {"draws": draws(method, 10)})


def visreg(method: Method, batches: list[Batch]) -> Trained:
    """View by view and direction by direction, against SciPy's quantiles; crops of each size are normalized apart."""
    student = copied(method, NAMES)
    quantiles = torch.as_tensor(norm.ppf([n / 9 for n in range(1, 9)]))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        sizes = batch.views[:4], batch.views[4:]
        pooled = [torch.cat([student["backbone"].pooled(view.value) for view in views]) for views in sizes]
        views = [view for part in pooled for view in student["projector"](part).split(8)]
        center, total = torch.stack(views[:4]).mean(dim=0), torch.zeros((), dtype=DOUBLE)
        for z in views:
            mean, deviation = z.mean(dim=0), z.std(dim=0, correction=0)
            unit = (z - mean) / (deviation.detach() + 1e-4)
            shape = (torch.sort(unit @ along(method, step), dim=0).values.T - quantiles).square().mean()
            spread = (1 - deviation).square().mean() + shape + mean.square().mean()
            total = total + (0.1 * (z - center).square().mean() + 0.9 * spread) / len(views)
        return total

    clip = lambda: nn.utils.clip_grad_norm_(student.parameters(), 1.0)  # noqa: E731
    decay = lambda _, name, weight: 0.05 * matrices(name, weight)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(9e-4, begin=9e-7, end=9e-7), decay, clip=clip))
    return trained(losses, named(student, NAMES) | {"draws": draws(method, 10)})


def mcr(students: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Minus the mean cosine of pairs of different views, and minus the rate of large views averaged with their targets.

    By determinants; a constant more than the authors', whose cosines are not taken from 1.
    """
    pairs = [(t, s) for t in range(2) for s in range(len(students)) if s != t]
    error = sum(1 - (targets[t] * students[s]).sum(dim=1).mean() for t, s in pairs) / len(pairs)
    number, dim = students[0].shape
    rates = []
    for student, target in zip(students[:2], targets, strict=True):
        z = (student + target) / 2
        rates.append(torch.logdet(torch.eye(dim, dtype=DOUBLE) + dim / (number * 0.05) * z.T @ z) / 2)
    return error - (dim + number) / (dim * number) * sum(rates) / 2


def simdino(method: Method, batches: list[Batch]) -> Trained:
    student = copied(method, HEADS)

    def features(network: nn.ModuleDict, batch: Batch, views: int) -> list[Tensor]:
        return [F.normalize(network["head"](network["backbone"].pooled(v.value)), dim=1) for v in batch.views[:views]]

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return mcr(features(student, batch, 4), features(teacher, batch, 2))

    def clip() -> None:
        for weight in student.parameters():
            if weight.grad is not None:
                weight.grad.mul_(min(1.0, 3.0 / (weight.grad.norm().item() + 1e-6)))

    decay = lambda step, name, weight: cosine(step, 0.04, 0.4) * matrices(name, weight)  # noqa: E731
    move = adamw(student, warm(5e-4 * 2, end=1e-6), decay, clip=clip)
    losses, teacher = learn(student, loss, batches, move, momentum=to_one(0.996))
    return trained(losses, named(student, HEADS) | {"teacher": teacher["backbone"], "teacher_head": teacher["head"]})


def simdinov2(method: Method, batches: list[Batch]) -> Trained:
    """Covered patches one by one, in the mean of each view's."""
    student = nn.ModuleDict(
        {"backbone": Masking(method.backbone, method.mask_token), **copied(method, {"head": "head"})}
    )

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        large, small = batch.views[:2], batch.views[2:]
        seen = [F.normalize(teacher["head"](teacher["backbone"](view.value)), dim=2) for view in large]
        told = [student["head"](student["backbone"](view.value, view.mask.where)) for view in large]
        told = [F.normalize(view, dim=2) for view in told]
        images = [view[:, 0] for view in told]
        images += [F.normalize(student["head"](student["backbone"](view.value)[:, 0]), dim=1) for view in small]
        total = mcr(images, [view[:, 0] for view in seen])
        for view, target, output in zip(large, seen, told, strict=True):
            for where, one, other in zip(view.mask.where, target[:, 1:], output[:, 1:], strict=True):
                if where.any():
                    total = total + (1 - (one[where] * other[where]).sum(dim=1)).mean() / 16
        return total

    def decays(name: str) -> bool:
        return not (name.endswith(".bias") or "norm" in name or "gamma" in name)

    def clip() -> None:
        for module in student.values():
            nn.utils.clip_grad_norm_(module.parameters(), 3.0)

    decay = lambda step, name, _: cosine(step, 0.04, 0.4) * decays(name)  # noqa: E731
    move = adamw(student, warm(4e-3 * math.sqrt(0.5), end=1e-6), decay, scale=dinov2_scale, clip=clip)
    losses, teacher = learn(student, loss, batches, move, momentum=to_one(0.9))
    parts = {"encoders.image": student["backbone"].encoder, "mask_token": student["backbone"].mask_token.detach()}
    parts |= {"head": student["head"], "teacher": teacher["backbone"].encoder, "teacher_head": teacher["head"]}
    return trained(losses, parts)


LOOPS = {
    "lejepa": of_recipe("lejepa", lejepa, "vit"),
    "visreg": of_recipe("visreg", visreg, "vit"),
    "simdino": of_recipe("simdino", simdino, "vit"),
    "simdinov2": of_recipe("simdinov2", simdinov2, "vit"),
}
