"""DINO, iBOT, DINOv2, DINOv3 and MSN: students of an EMA teacher, by AdamW with a schedule for everything."""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.sections import Optim

from .authors import BYOLS, Loss, Rate, adamw, cosine, learn, trained, warm
from .ours import STEPS, Loop, Trained

TEMPERATURES = [0.04, 0.055, 0.07, 0.07, 0.07]  # of five epochs of two steps, three of them to warm up
SETTINGS = {"lr": 1e-3, "lr_rule": "none", "betas": (0.9, 0.999), "min_lr": 1e-4}
SETTINGS |= {"weight_decay": 0.04, "weight_decay_end": 0.4}
Decays = Callable[[str, Tensor], bool]  # of a weight


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Masking(nn.Module):
    """An encoder and the vector that stands for covered patches."""

    def __init__(self, encoder: nn.Module, token: Tensor) -> None:
        super().__init__()
        self.encoder, self.mask_token = copy.deepcopy(encoder), nn.Parameter(token.detach().clone().view(1, -1))

    def forward(self, tokens: Tensor, where: Tensor | None = None) -> Tensor:
        return self.encoder(tokens, cover=None if where is None else (where, self.mask_token))


def dino_head(ours: nn.Sequential, *, learned: bool) -> nn.Sequential:
    """The authors' head with the weights of ours: its last layer is torch's weight norm."""
    *layers, last = copy.deepcopy(list(ours))
    linear = nn.Linear(last.weight.shape[1], last.weight.shape[0], bias=False, dtype=torch.float64)
    linear.weight.data = last.weight.data
    normed = weight_norm(linear)
    normed.parametrizations.weight.original0.data.fill_(1.0)
    normed.parametrizations.weight.original0.requires_grad_(learned)
    return nn.Sequential(*layers, Unit(), normed)


def heads(path: str, head: nn.Sequential) -> dict[str, Tensor]:
    """Return the weights of the authors' head by their names in ours."""
    last, state = f"{len(head) - 2}.", {}
    for name, value in head.state_dict().items():
        if name.endswith("original0") and not head[-1].parametrizations.weight.original0.requires_grad:
            continue
        ours = {"original0": last + "lengths", "original1": last + "weight"}.get(name.rsplit(".", 1)[1], name)
        state[f"{path}.{ours}"] = value
    return state


def follow(
    student: nn.ModuleDict,
    loss: Loss,
    batches: list[Batch],
    *,
    decays: Decays,
    clip: Callable[[nn.ModuleDict], None],
    scale: Callable[[str], float] = lambda _: 1.0,
    momentum: Rate = BYOLS,
) -> tuple[list[float], nn.ModuleDict]:
    """Train as the authors do; return the losses and the teacher. Last layers wait for the first two steps."""
    move = adamw(
        student,
        warm(1e-3, end=1e-4),
        lambda step, name, weight: cosine(step, 0.04, 0.4) * decays(name, weight),
        scale=scale,
        clip=partial(clip, student),
        waits=lambda name, step: step < 2 and "parametrizations" in name,
    )
    return learn(student, loss, batches, move, momentum=momentum)


def matrices(name: str, weight: Tensor) -> bool:
    return not (name.endswith(".bias") or weight.ndim == 1)


def clip_each(student: nn.ModuleDict) -> None:
    for weight in student.parameters():
        if weight.grad is not None:
            weight.grad.mul_(min(1.0, 0.05 / (weight.grad.norm().item() + 1e-6)))


def cross_entropy(targets: Tensor, outputs: Tensor) -> Tensor:
    """(..., K), (..., K) -> (...)"""
    return -(targets * F.log_softmax(outputs / 0.1, dim=-1)).sum(dim=-1)


def on_images(targets: list[Tensor], students: list[Tensor]) -> Tensor:
    """The mean over all pairs of a large crop and another crop."""
    terms = [
        cross_entropy(target, student).mean()
        for large, target in enumerate(targets)
        for crop, student in enumerate(students)
        if crop != large
    ]
    assert len(terms) == 6
    return sum(terms) / 6


def centers() -> tuple[Tensor, Tensor]:
    """Return those of images and of patches."""
    return torch.zeros(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)


def dino(method: Method, batches: list[Batch], *, learned: bool) -> Trained:
    head = dino_head(method.head, learned=learned)
    student = nn.ModuleDict({"backbone": copy.deepcopy(method.backbone), "head": head})
    center, _ = centers()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        outputs = [student["head"](student["backbone"](view.value)[:, 0]) for view in batch.views]
        answers = [teacher["head"](teacher["backbone"](view.value)[:, 0]) for view in batch.views[:2]]
        targets = [F.softmax((logits - center) / TEMPERATURES[step // 2], dim=-1) for logits in answers]
        center.mul_(0.9).add_(0.1 * torch.cat(answers).mean(dim=0))
        return on_images(targets, outputs)

    losses, teacher = follow(student, loss, batches, decays=matrices, clip=clip_each)
    parts = {"encoders.image": student["backbone"], "teacher": teacher["backbone"], "center": center}
    return trained(losses, parts | heads("head", student["head"]))


def ibot(method: Method, batches: list[Batch]) -> Trained:
    backbone = Masking(method.backbone, method.mask_token)
    student = nn.ModuleDict({"backbone": backbone, "head": dino_head(method.head, learned=True)})
    center, center2 = centers()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        large, temperature = batch.views[:2], TEMPERATURES[step // 2]
        answers = [teacher["head"](teacher["backbone"](view.value)) for view in large]
        hidden = [student["head"](student["backbone"](view.value, view.mask.where)) for view in large]
        small = [student["head"](student["backbone"](view.value)[:, 0]) for view in batch.views[2:]]
        targets = [F.softmax((logits[:, 0] - center) / temperature, dim=-1) for logits in answers]
        patches = [F.softmax((logits[:, 1:] - center2) / temperature, dim=-1) for logits in answers]
        total = on_images(targets, [*(view[:, 0] for view in hidden), *small])
        for target, output, view in zip(patches, hidden, large, strict=True):
            covered = cross_entropy(target, output[:, 1:]) * view.mask.where
            total = total + (covered.sum(dim=1) / view.mask.where.sum(dim=1).clamp(min=1)).mean() / 2
        center.mul_(0.9).add_(0.1 * torch.cat(answers)[:, 0].mean(dim=0))
        center2.mul_(0.9).add_(0.1 * torch.cat(answers)[:, 1:].mean(dim=1).mean(dim=0))
        return total

    losses, teacher = follow(student, loss, batches, decays=matrices, clip=clip_each)
    return trained(losses, masked(student, teacher, center, center2) | heads("head", student["head"]))


def masked(
    student: nn.ModuleDict, teacher: nn.ModuleDict, center: Tensor, center2: Tensor
) -> dict[str, nn.Module | Tensor]:
    return {
        "encoders.image": student["backbone"].encoder,
        "mask_token": student["backbone"].mask_token.detach(),
        "teacher": teacher["backbone"].encoder,
        "center": center,
        "patch_center": center2,
    }


def koleo(z: Tensor) -> Tensor:
    unit = F.normalize(z, dim=1)
    apart = (unit[:, None] - unit).square().sum(dim=2) + 1e3 * torch.eye(len(z), dtype=z.dtype)
    return -(apart.min(dim=1).values.sqrt() + 1e-8).log().mean()


def dinov2_scale(name: str) -> float:
    """The rate of a weight at a decay of 0.9 a block, for two blocks."""
    if not name.startswith("backbone"):
        return 1.0
    if any(part in name for part in ("pos_embed", "patch_embed", "mask_token", "cls_token")):
        return 0.9**3 * (0.2 if "patch_embed" in name else 1.0)
    return 0.9 ** (2 - int(name.split(".blocks.")[1][0])) if ".blocks." in name else 1.0


def dinov2(method: Method, batches: list[Batch]) -> Trained:
    """Train as the short recipe: centers, and both large crops in KoLeo; the temperature rises from step to step;
    modules are clipped apart.
    """
    student = nn.ModuleDict({"backbone": Masking(method.backbone, method.mask_token)})
    student.update({f"head{number}": dino_head(head, learned=True) for number, head in enumerate(method.heads)})
    center, center2 = centers()
    patch_head = f"head{len(method.heads) - 1}"

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        large, temperature = batch.views[:2], 0.04 + 0.03 * min(step / 5, 1)
        mask = torch.cat([view.mask.where for view in large])
        seen = [teacher["backbone"](view.value) for view in large]
        hidden = [student["backbone"](view.value, view.mask.where) for view in large]
        small = [student["backbone"](view.value) for view in batch.views[2:]]
        answers = [teacher["head0"](view[:, 0]) for view in seen]
        patches = teacher[patch_head](torch.cat(seen)[:, 1:][mask])
        targets = [F.softmax((logits - center) / temperature, dim=-1) for logits in answers]
        patch_targets = F.softmax((patches - center2) / temperature, dim=-1)
        total = on_images(targets, [student["head0"](view[:, 0]) for view in [*hidden, *small]])
        outputs = student[patch_head](torch.cat(hidden)[:, 1:][mask])
        weight = (1 / mask.sum(dim=1).clamp(min=1).double()).unsqueeze(1).expand_as(mask)[mask]
        total = total + (cross_entropy(patch_targets, outputs) * weight).sum() / len(mask)
        center.mul_(0.9).add_(0.1 * torch.cat(answers).mean(dim=0))
        center2.mul_(0.9).add_(0.1 * patches.mean(dim=0))
        return total + 0.1 * sum(koleo(view[:, 0]) for view in hidden)

    def decays(name: str, weight: Tensor) -> bool:  # noqa: ARG001
        return not (name.endswith(".bias") or "norm" in name.replace("parametrizations", "") or "gamma" in name)

    def clip(student: nn.ModuleDict) -> None:
        for module in student.values():
            nn.utils.clip_grad_norm_(module.parameters(), 0.3)

    losses, teacher = follow(student, loss, batches, decays=decays, clip=clip, scale=dinov2_scale)
    state = masked(student, teacher, center, center2)
    for number in range(len(method.heads)):
        state |= heads(f"heads.{number}", student[f"head{number}"])
    return trained(losses, state)


def sinkhorn(rows: Tensor) -> Tensor:
    """MSN's, three rounds, on probabilities."""
    q = rows.T / rows.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def plain_head(ours: nn.Sequential) -> nn.Sequential:
    """DINOv3's head with the weights of ours: its last layer is a linear one of unit vectors."""
    *layers, last = copy.deepcopy(list(ours))
    linear = nn.Linear(last.weight.shape[1], last.weight.shape[0], bias=False, dtype=torch.float64)
    linear.weight.data = last.weight.data
    return nn.Sequential(*layers, Unit(), linear)


def gram(features: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, N)"""
    unit = F.normalize(features, dim=2)
    return (unit[:, :, None] * unit[:, None]).sum(dim=3)


def dinov3(method: Method, batches: list[Batch]) -> Trained:
    """Train as the second stage: the Gram teacher becomes the teacher after four steps, and no more."""
    student = nn.ModuleDict({"backbone": Masking(method.backbone, method.mask_token)})
    student.update({f"head{number}": plain_head(head) for number, head in enumerate(method.heads)})
    anchor, last = copy.deepcopy(method.gram_teacher), {"head0.6.weight", "head1.6.weight"}

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        if step == 4:
            anchor.load_state_dict(teacher["backbone"].encoder.state_dict())
        large, temperature = batch.views[:2], 0.04 + 0.03 * min(step / 5, 1)
        mask = torch.cat([view.mask.where for view in large])
        seen = torch.cat([teacher["backbone"](view.value) for view in large])
        hidden = [student["backbone"](view.value, view.mask.where) for view in large]
        small = [student["backbone"](view.value) for view in batch.views[2:4]]
        targets = sinkhorn((teacher["head0"](seen[:, 0]) / temperature).exp())
        patch_targets = sinkhorn((teacher["head1"](seen[:, 1:][mask]) / temperature).exp())
        total = on_images(targets.chunk(2), [student["head0"](view[:, 0]) for view in [*hidden, *small]])
        outputs = student["head1"](torch.cat(hidden)[:, 1:][mask])
        weight = (1 / mask.sum(dim=1).clamp(min=1).double()).unsqueeze(1).expand_as(mask)[mask]
        total = total + (cross_entropy(patch_targets, outputs) * weight).sum() / len(mask)
        for view, plain in zip(hidden, batch.views[4:], strict=True):
            fine = anchor(plain.value)[:, 1:].unflatten(1, (6, 6)).movedim(3, 1)
            before = F.interpolate(fine, size=(4, 4), mode="bicubic").flatten(2).mT
            total = total + 2 * (gram(view[:, 1:]) - gram(before)).square().mean() / 2
        return total + 0.1 * sum(koleo(view[:, 0]) for view in hidden)

    def clip() -> None:
        for module in student.values():
            nn.utils.clip_grad_norm_(module.parameters(), 0.3)

    def decay(step: int, name: str, weight: Tensor) -> float:  # noqa: ARG001
        return cosine(step, 0.04, 0.4) * (not (name.endswith(".bias") or "norm" in name))

    waits = lambda name, step: step < 2 and name in last  # noqa: E731
    move = adamw(student, warm(1e-3, end=1e-4), decay, scale=dinov2_scale, clip=clip, waits=waits)
    losses, teacher = learn(student, loss, batches, move, momentum=lambda step: cosine(step, 0.9, 0.99))
    state = {"encoders.image": student["backbone"].encoder, "mask_token": student["backbone"].mask_token.detach()}
    state |= {"teacher": teacher["backbone"].encoder, "gram_teacher": anchor}
    for number in (0, 1):
        own = student[f"head{number}"].state_dict().items()
        state |= {f"heads.{number}.{name.replace('6.', '5.')}": weight for name, weight in own}
    return trained(losses, state)


def msn(method: Method, batches: list[Batch]) -> Trained:
    """Prototypes neither decay nor are clipped; the teacher's momentum would arrive at 1 after five quarters."""
    parts = {"backbone": method.backbone, "projector": method.projector}
    student = nn.ModuleDict({name: copy.deepcopy(module) for name, module in parts.items()})
    student["prototypes"] = nn.Linear(16, 12, bias=False, dtype=torch.float64)
    student["prototypes"].weight.data = method.prototypes.weight.detach().clone()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        def probabilities(z: Tensor) -> Tensor:
            rows = F.normalize(student["prototypes"].weight, dim=1)
            return F.softmax(F.normalize(z, dim=1) @ rows.T / 0.1, dim=1)

        target, anchor, *small = batch.views
        large = student["projector"](student["backbone"](anchor.value, anchor.mask.keep)[:, 0])
        others = student["projector"](torch.cat([student["backbone"](view.value)[:, 0] for view in small]))
        probs = probabilities(torch.cat([large, others]))
        with torch.no_grad():
            sharp = probabilities(teacher["projector"](teacher["backbone"](target.value)[:, 0])) ** (1 / 0.25)
            targets = sinkhorn(sharp / sharp.sum(dim=1, keepdim=True)).repeat(3, 1)
        mean = probs.mean(dim=0)
        entropy = (mean * mean.log()).sum() + math.log(12)
        return -(targets * probs.log()).sum(dim=1).mean() + entropy

    def decays(name: str, weight: Tensor) -> bool:
        return weight.ndim != 1 and "bias" not in name and "prototypes" not in name

    def clip(student: nn.ModuleDict) -> None:
        encoder = [*student["backbone"].parameters(), *student["projector"].parameters()]
        nn.utils.clip_grad_norm_(encoder, 0.3)

    def momentum(step: int) -> float:
        return 0.9 + 0.1 * step / (1.25 * STEPS)

    losses, teacher = follow(student, loss, batches, decays=decays, clip=clip, momentum=momentum)
    names = {"encoders.image": "backbone", "projector": "projector", "prototypes": "prototypes"}
    state = {path: student[part] for path, part in names.items()}
    return trained(losses, state | {"teacher": teacher["backbone"], "teacher_projector": teacher["projector"]})


EACH, WHOLE = Optim(**SETTINGS, clip_each=0.05), Optim(**SETTINGS, clip_norm=0.3)
COMMON = {"momentum": 0.9, "teacher_warmup": 0.6, "freeze": 0.2}
SHORT = COMMON | {"balance": "center", "koleo_crops": 2, "teacher_warmup": 0.5}
GRAM = {"momentum_end": 0.99, "teacher_warmup": 0.5, "layer_decay": 0.9, "renewals": 1, "renewed_every": 0.4}
LOOPS = {
    "dino": Loop("dino", EACH, partial(dino, learned=False), COMMON),
    "dino-lengths": Loop("dino", EACH, partial(dino, learned=True), COMMON | {"norm_last_layer": False}),
    "ibot": Loop("ibot", EACH, ibot, COMMON | {"norm_last_layer": False}),
    "dinov2": Loop("dinov2", WHOLE, dinov2, SHORT),
    "dinov2-shared": Loop("dinov2", WHOLE, dinov2, SHORT | {"shared_head": True}),
    "dinov3": Loop("dinov3", WHOLE, dinov3, COMMON | GRAM),
    "msn": Loop("msn", WHOLE, msn, {"momentum": 0.9}),
}
