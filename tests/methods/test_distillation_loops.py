"""Ten steps of DINO, iBOT, DINOv2 and MSN against loops written from the authors' published code and settings.

Optimizer, decay, clipping, schedules, frozen layers, teacher and its temperature, losses and heads are written anew; an
encoder's forward pass is ours. In double precision, where ten steps of AdamW leave no room for rounding.
"""

import copy
import math
from collections.abc import Callable
from itertools import cycle, islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.optim import build
from selfsup.sections import Optim
from selfsup.train import read, train

STEPS, WARMUP = 10, 2
TEMPERATURES = [0.04, 0.055, 0.07, 0.07, 0.07]  # of five epochs of two steps, three of them to warm up
COMMON = {"lr": 1e-3, "lr_rule": "none", "betas": (0.9, 0.999), "min_lr": 1e-4}
DECAY = {"weight_decay": 0.04, "weight_decay_end": 0.4}
Loss = Callable[[nn.ModuleDict, nn.ModuleDict, Batch, int], Tensor]  # of student, teacher, batch and step


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)


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


def cosine(step: float, start: float, end: float, steps: int = STEPS) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def authors(
    student: nn.ModuleDict,
    loss: Loss,
    batches: list[Batch],
    *,
    decays: Callable[[str, Tensor], bool],
    clip: Callable[[nn.ModuleDict], None],
    scale: Callable[[str], float] = lambda _: 1.0,
    momentum: Callable[[int], float] = lambda step: cosine(step, 0.9, 1.0),
) -> tuple[list[float], nn.ModuleDict]:
    """Train as the authors do; return the losses and the teacher. Last layers wait for the first two steps."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    named = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
    adamw = torch.optim.AdamW(
        [{"params": [weight], "name": name} for name, weight in named.items()], betas=(0.9, 0.999)
    )
    losses = []
    for step, batch in enumerate(islice(cycle(batches), STEPS)):
        rate = 1e-3 * (step + 1) / WARMUP if step < WARMUP else cosine(step - WARMUP, 1e-3, 1e-4, STEPS - WARMUP)
        for group in adamw.param_groups:
            group["lr"] = rate * scale(group["name"])
            group["weight_decay"] = cosine(step, 0.04, 0.4) * decays(group["name"], group["params"][0])
        adamw.zero_grad()
        value = loss(student, teacher, batch, step)
        value.backward()
        clip(student)
        for name, weight in named.items():
            if step < 2 and "parametrizations" in name:
                weight.grad = None
        adamw.step()
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.mul_(momentum(step)).add_((1 - momentum(step)) * new)
        losses.append(value.item())
    return losses, teacher


def ours(method: Method, batches: list[Batch], **clip: float) -> list[float]:
    optim = Optim(**COMMON, **DECAY, **clip)
    sizes = {"start": 0, "steps": STEPS, "warmup_steps": WARMUP, "batch_size": 8, "seed": 0}
    steps = train(method, method, build(method, optim), islice(cycle(batches), STEPS), optim=optim, **sizes)
    return [read(step)["loss"] for step in steps]


def settings(setting, name: str, **hyper: object) -> tuple[Method, list[Batch]]:
    method, batch = setting(name, double=True, momentum=0.9, **hyper)
    return method, [batch, *(setting(name, double=True, seed=seed, **hyper)[1] for seed in (1, 2))]


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


def agree(method: Method, encoder: nn.Module, found: list[float], expected: list[float]) -> None:
    assert len(expected) == STEPS
    assert found == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(
        dict(method.teacher.named_parameters()), dict(encoder.named_parameters()), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_dino(norm_last_layer: bool, setting) -> None:
    method, batches = settings(setting, "dino", norm_last_layer=norm_last_layer, teacher_warmup=0.6, freeze=0.2)
    head = dino_head(method.head, learned=not norm_last_layer)
    student = nn.ModuleDict({"backbone": copy.deepcopy(method.backbone), "head": head})
    center = torch.zeros(24, dtype=torch.float64)

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        outputs = [student["head"](student["backbone"](view.value)[:, 0]) for view in batch.views]
        told = [teacher["head"](teacher["backbone"](view.value)[:, 0]) for view in batch.views[:2]]
        targets = [F.softmax((logits - center) / TEMPERATURES[step // 2], dim=-1) for logits in told]
        center.mul_(0.9).add_(0.1 * torch.cat(told).mean(dim=0))
        return on_images(targets, outputs)

    expected, teacher = authors(student, loss, batches, decays=matrices, clip=clip_each)
    agree(method, teacher["backbone"], ours(method, batches, clip_each=0.05), expected)
    last = student["head"][-1].parametrizations.weight
    torch.testing.assert_close(method.head[-1].weight, last.original1)
    lengths = method.head[-1].lengths
    assert (lengths is None) == norm_last_layer
    if lengths is not None:
        assert not lengths.eq(1).any()
        torch.testing.assert_close(lengths, last.original0)


def test_ibot(setting) -> None:
    method, batches = settings(setting, "ibot", norm_last_layer=False, teacher_warmup=0.6, freeze=0.2)
    backbone = Masking(method.backbone, method.mask_token)
    student = nn.ModuleDict({"backbone": backbone, "head": dino_head(method.head, learned=True)})
    center, center2 = torch.zeros(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        large, temperature = batch.views[:2], TEMPERATURES[step // 2]
        told = [teacher["head"](teacher["backbone"](view.value)) for view in large]
        hidden = [student["head"](student["backbone"](view.value, view.mask.where)) for view in large]
        small = [student["head"](student["backbone"](view.value)[:, 0]) for view in batch.views[2:]]
        targets = [F.softmax((logits[:, 0] - center) / temperature, dim=-1) for logits in told]
        patches = [F.softmax((logits[:, 1:] - center2) / temperature, dim=-1) for logits in told]
        total = on_images(targets, [*(view[:, 0] for view in hidden), *small])
        for target, output, view in zip(patches, hidden, large, strict=True):
            covered = cross_entropy(target, output[:, 1:]) * view.mask.where
            total = total + (covered.sum(dim=1) / view.mask.where.sum(dim=1).clamp(min=1)).mean() / 2
        center.mul_(0.9).add_(0.1 * torch.cat(told)[:, 0].mean(dim=0))
        center2.mul_(0.9).add_(0.1 * torch.cat(told)[:, 1:].mean(dim=1).mean(dim=0))
        return total

    expected, teacher = authors(student, loss, batches, decays=matrices, clip=clip_each)
    agree(method, teacher["backbone"].encoder, ours(method, batches, clip_each=0.05), expected)
    torch.testing.assert_close(method.mask_token, student["backbone"].mask_token)
    torch.testing.assert_close(method.head[-1].lengths, student["head"][-1].parametrizations.weight.original0)


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


@pytest.mark.parametrize("shared", [False, True])
def test_dinov2_as_its_short_recipe(shared: bool, setting) -> None:
    """Centers, and both large crops in KoLeo; the temperature rises from step to step; modules are clipped apart."""
    knobs = {"balance": "center", "koleo_crops": 2, "shared_head": shared, "teacher_warmup": 0.5, "freeze": 0.2}
    method, batches = settings(setting, "dinov2", **knobs)
    student = nn.ModuleDict({"backbone": Masking(method.backbone, method.mask_token)})
    student.update({f"head{number}": dino_head(head, learned=True) for number, head in enumerate(method.heads)})
    center, center2 = torch.zeros(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    patch_head = f"head{len(method.heads) - 1}"

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        large, temperature = batch.views[:2], 0.04 + 0.03 * min(step / 5, 1)
        mask = torch.cat([view.mask.where for view in large])
        seen = [teacher["backbone"](view.value) for view in large]
        hidden = [student["backbone"](view.value, view.mask.where) for view in large]
        small = [student["backbone"](view.value) for view in batch.views[2:]]
        told = [teacher["head0"](view[:, 0]) for view in seen]
        patches = teacher[patch_head](torch.cat(seen)[:, 1:][mask])
        targets = [F.softmax((logits - center) / temperature, dim=-1) for logits in told]
        patch_targets = F.softmax((patches - center2) / temperature, dim=-1)
        total = on_images(targets, [student["head0"](view[:, 0]) for view in [*hidden, *small]])
        outputs = student[patch_head](torch.cat(hidden)[:, 1:][mask])
        weight = (1 / mask.sum(dim=1).clamp(min=1)).unsqueeze(1).expand_as(mask)[mask]
        total = total + (cross_entropy(patch_targets, outputs) * weight).sum() / len(mask)
        center.mul_(0.9).add_(0.1 * torch.cat(told).mean(dim=0))
        center2.mul_(0.9).add_(0.1 * patches.mean(dim=0))
        return total + 0.1 * sum(koleo(view[:, 0]) for view in hidden)

    def decays(name: str, weight: Tensor) -> bool:  # noqa: ARG001
        return not (name.endswith(".bias") or "norm" in name.replace("parametrizations", "") or "gamma" in name)

    def clip(student: nn.ModuleDict) -> None:
        for module in student.values():
            nn.utils.clip_grad_norm_(module.parameters(), 0.3)

    expected, teacher = authors(student, loss, batches, decays=decays, clip=clip, scale=dinov2_scale)
    agree(method, teacher["backbone"].encoder, ours(method, batches, clip_norm=0.3), expected)
    torch.testing.assert_close(method.mask_token, student["backbone"].mask_token)
    for number, head in enumerate(method.heads):
        last = student[f"head{number}"][-1].parametrizations.weight
        torch.testing.assert_close(
            dict(head[-1].named_parameters()), {"weight": last.original1, "lengths": last.original0}
        )


def sinkhorn(rows: Tensor) -> Tensor:
    """MSN's, three rounds, on probabilities."""
    q = rows.T / rows.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def test_msn(setting) -> None:
    """Prototypes neither decay nor are clipped; the teacher's momentum would arrive at 1 after five quarters."""
    method, batches = settings(setting, "msn")
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

    expected, teacher = authors(student, loss, batches, decays=decays, clip=clip, momentum=momentum)
    agree(method, teacher["backbone"], ours(method, batches, clip_norm=0.3), expected)
    torch.testing.assert_close(method.prototypes.weight, student["prototypes"].weight)
