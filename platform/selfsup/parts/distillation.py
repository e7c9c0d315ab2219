"""Losses of students and updates of their teachers' targets, an equation each, in fp32 whatever precision the step has.

N: samples of this process, B: views, M: tokens, V: views of a sample, D: channels, K: outputs of a head.

Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.knob import Range
from selfsup.masks import BoolMask, Mask
from selfsup.parts import dist
from selfsup.parts.precision import no_autocast
from selfsup.parts.schedules import ramp

Knob = dict[str, Any]  # all of a knob but its default, which each method has from its paper
TEMPERATURE: Knob = {"doc": "of the student", "symbol": "τₛ", "sweep": Range(0.05, 0.5, log=True), "gt": 0}
TEACHER_TEMPERATURE: Knob = {"doc": "of the teacher in the end", "symbol": "τₜ", "sweep": Range(0.02, 0.1), "gt": 0}
TEACHER_START: Knob = {"doc": "temperature of the teacher at first", "sweep": Range(0.02, 0.07), "gt": 0}
TEACHER_WARMUP: Knob = {"doc": "share of training in which it rises", "sweep": Range(0.0, 0.5), "ge": 0, "le": 1}
EXPANSION: Knob = {"doc": "weight of the coding rate", "symbol": "γ", "sweep": Range(0.1, 10.0, log=True), "ge": 0}
DISTORTION: Knob = {
    "doc": "squared, that the rate allows",
    "symbol": "ε²",
    "sweep": Range(0.01, 1.0, log=True),
    "gt": 0,
}


class TeacherWarmup(Protocol):
    """The knobs of a teacher's temperature."""

    @property
    def teacher_start(self) -> float: ...
    @property
    def teacher_temperature(self) -> float: ...
    @property
    def teacher_warmup(self) -> float: ...


def teacher_temperature(t: float, knobs: TeacherWarmup) -> float:
    """Return the temperature at the share t of training: a line up to teacher_warmup, then constant.

    DINO (arXiv 2104.14294), section 3.1, "Implementation details", as DINOv2's code has it.
    """
    return ramp(t, knobs.teacher_start, knobs.teacher_temperature, knobs.teacher_warmup)


def teacher_temperature_by_epoch(step: int, knobs: TeacherWarmup, *, steps: int, steps_per_epoch: int) -> float:
    """Return the temperature at a step, 0 <= step <= steps, where all steps of an epoch have that of its first.

    As the code of DINO and iBOT: teacher_start in the first epoch of the warm-up, teacher_temperature in its last. A
    warm-up of less than two epochs is a line.
    """
    epochs = round(knobs.teacher_warmup * steps / steps_per_epoch)
    if epochs < 2:
        return teacher_temperature(step / steps, knobs)
    return ramp(step // steps_per_epoch, knobs.teacher_start, knobs.teacher_temperature, epochs - 1)


def cosine_error(student: Tensor, target: Tensor) -> Tensor:
    """(N, D), (N, D) -> (): 2 - 2 cos, the squared distance of unit vectors, averaged over samples.

    BYOL (arXiv 2006.07733), eq. 2.
    """
    return 2 + 2 * negative_cosine(student, target)


def negative_cosine(student: Tensor, target: Tensor) -> Tensor:
    """(N, D), (N, D) -> (): from -1 to 1, averaged over samples.

    SimSiam (arXiv 2011.10566), eq. 1.
    """
    return -F.cosine_similarity(student.float(), target.float(), dim=1).mean()


@torch.no_grad()
def centered(logits: Tensor, center: Tensor, *, temperature: Tensor) -> Tensor:
    """(..., K), (K,), () -> (..., K): the teacher's probabilities, which sum to 1.

    DINO (arXiv 2104.14294), eq. 1 of the teacher's output less the center.
    """
    return F.softmax((logits.float() - center) / temperature, dim=-1)


@torch.no_grad()
def recenter(center: Tensor, rows: Tensor, *, momentum: float) -> None:
    """Set a center (K,) to momentum * itself + (1 - momentum) * the mean of the rows (n, K) of all processes.

    DINO (arXiv 2104.14294), eq. 4.
    """
    center.lerp_(dist.mean(rows.float().mean(dim=0)), 1 - momentum)


@torch.no_grad()
def recenter_by_sums(center: Tensor, sums: Tensor, number: Tensor, *, momentum: float) -> None:
    """Update a center (K,) likewise by sums (n, K) of rows, `number` (n,) in each; it stays where there are none."""
    total, count = dist.total(sums.float().sum(dim=0)), dist.total(number.sum())
    center.lerp_(total / count.clamp_min(1), (1 - momentum) * (count > 0))


@torch.no_grad()
def covered(masks: Sequence[Mask | None]) -> tuple[Tensor, Tensor, Tensor]:
    """B masks, in views -> (B, N) bool; (M,) int64: masked tokens, numbered through the batch; (M,): their weights.

    The tokens of a view weigh the same, and 1 / B together. Where nothing is masked, M is 1, of weight 0.
    """
    covers = [mask for mask in masks if isinstance(mask, BoolMask)]
    where, number = torch.cat([cover.where for cover in covers]), sum(sum(cover.number.tolist()) for cover in covers)
    places = where.flatten().int().argsort(descending=True, stable=True)[: max(number, 1)]
    share = where / (len(where) * where.sum(dim=1, keepdim=True).clamp_min(1))
    return where, places, share.flatten()[places]


def masked_entropy(targets: Tensor, logits: Tensor, weight: Tensor, *, temperature: float) -> Tensor:
    """(M, K), (M, K), (M,) -> (): weighted cross-entropy of masked tokens.

    iBOT (arXiv 2111.07832), eq. 2, which divides by the view's masked tokens, as `covered` does; a view without
    any counts as 0.
    """
    log_p = F.log_softmax(logits.float() / temperature, dim=-1)
    return -((targets * log_p).sum(dim=-1) * weight).sum()


def unit(features: Tensor) -> Tensor:
    """(..., D) -> (..., D): features at length 1."""
    return F.normalize(features.float(), dim=-1)


def crossed(students: Tensor, targets: Tensor) -> Tensor:
    """(V, N, D), (A, N, D), unit vectors -> (): half the squared distance of each view from the first A views' targets,
    but for its own, averaged over samples and pairs of views.

    SimDINO (arXiv 2502.10385), its first term; 1 - cos.
    """
    with no_autocast(students):
        cosines = torch.einsum("and,vnd->av", targets, students) / students.shape[1]
    own = torch.eye(*cosines.shape, dtype=torch.bool, device=cosines.device)
    return 1 - cosines.masked_fill(own, 0).sum() / (cosines.numel() - len(targets))


def koleo(z: Tensor, *, split: int, epsilon: float = 1e-8) -> Tensor:
    """(N, D) -> (): minus the logarithm of the distance of each sample to its nearest one, at unit length.

    DINOv2 (arXiv 2304.07193), section 4, after Sablayrolles et al. (arXiv 1806.03198), eq. 2. Samples of all processes,
    in `split` groups, in each of which every sample looks for its nearest; the paper's are those of one GPU each.
    """
    unit = dist.gather(F.normalize(z.float(), dim=1))
    assert len(unit) % split == 0, f"{len(unit)} samples do not divide into {split} groups"
    groups = unit.view(-1, split, z.shape[1]).transpose(0, 1)  # (split, n, D)
    with no_autocast(unit), torch.no_grad():
        itself = torch.eye(groups.shape[1], dtype=torch.bool, device=unit.device)
        nearest = (groups @ groups.mT).masked_fill(itself, -torch.inf).argmax(dim=2, keepdim=True)
    distance = F.pairwise_distance(groups, groups.take_along_dim(nearest, dim=1), eps=epsilon)
    return -(distance + epsilon).log().mean()


def gram_error(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, N, D), (B, N, T) -> (): squared difference of the cosines between patches of one image, averaged over pairs.

    DINOv3 (arXiv 2508.10104), its Gram loss, which the authors' code averages, and the paper sums.
    """
    with no_autocast(student):
        own, other = unit(student), unit(teacher)
        return F.mse_loss(own @ own.mT, other @ other.mT)


def assigned(targets: Tensor, logits: Tensor, *, temperature: float) -> Tensor:
    """(N, K), (V, N, K) -> (): cross-entropy of each view's logits with its sample's target.

    MSN (arXiv 2204.07141), eq. 1, its first term.
    """
    return -(targets * F.log_softmax(logits.float() / temperature, dim=-1)).sum(dim=-1).mean()


def me_max(p: Tensor) -> Tensor:
    """(n, K), rows that sum to 1 -> (): ln K less the entropy of their mean over all processes; 0 at the least.

    MSN (arXiv 2204.07141), eq. 1, its second term, and ln K, as the authors' code has it.
    """
    mean = dist.gather(p.float().mean(dim=0, keepdim=True)).mean(dim=0)
    entropy: Tensor = torch.special.entr(mean).sum()
    return math.log(len(mean)) - entropy
