"""Ten steps of SimCLR, BYOL, VICReg and SwAV against loops written from the authors' published code and settings.

LARS in its three forms, schedules, frozen prototypes, target and losses are written anew; forward passes of encoders
and heads are ours. In double precision.
"""

import copy
import math
from collections.abc import Callable
from itertools import cycle, islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.optim import build
from selfsup.sections import Optim
from selfsup.train import read, train

STEPS, WARMUP = 10, 2
PEAK, BEGIN, END, DECAY, TRUST = 0.5, 0.1, 0.05, 0.01, 0.02
Loss = Callable[[nn.ModuleDict, nn.ModuleDict, Batch], Tensor]  # of student, target and batch


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def cosine(step: float, start: float, end: float, steps: int) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def update(weight: Tensor, grad: Tensor, form: str) -> Tensor:
    """What joins the momentum: SwAV's LARC adapts everything; the others matrices, after their decay."""
    if form != "larc" and weight.ndim <= 1:
        return grad
    decayed, length = grad + DECAY * weight, weight.norm().item()
    slope = grad.norm().item() + DECAY * length if form == "larc" else decayed.norm().item()
    return decayed * TRUST * length / slope if length and slope else decayed


def authors(student: nn.ModuleDict, loss: Loss, batches: list[Batch], form: str) -> list[float]:
    """Train as the authors do; return the losses. Prototypes wait for the first two steps and keep unit length."""
    target = copy.deepcopy(student).requires_grad_(False)
    named, losses = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}, []
    velocity = {name: torch.zeros_like(weight) for name, weight in named.items()}
    for step, batch in enumerate(islice(cycle(batches), STEPS)):
        rate = BEGIN + (PEAK - BEGIN) * (step + 1) / WARMUP
        rate = rate if step < WARMUP else cosine(step - WARMUP, PEAK, END, STEPS - WARMUP)
        value = loss(student, target, batch)
        grads = dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))
        losses.append(value.item())
        with torch.no_grad():
            for name, weight in named.items():
                if step < 2 and name.startswith("prototypes"):
                    continue
                change = update(weight, grads[name], form)
                velocity[name] = 0.9 * velocity[name] + (rate if form == "simclr" else 1.0) * change
                weight -= (1.0 if form == "simclr" else rate) * velocity[name]
            if "prototypes" in student:
                student["prototypes"].weight.copy_(F.normalize(student["prototypes"].weight, dim=1))
            tau = cosine(step, 0.9, 1.0, STEPS)
            for old, new in zip(target.parameters(), student.parameters(), strict=True):
                old.mul_(tau).add_((1 - tau) * new)
    return losses


def ours(method: Method, batches: list[Batch], form: str) -> list[float]:
    rates = {"lr": PEAK, "lr_rule": "none", "warmup": {"steps": WARMUP}, "warmup_lr": BEGIN, "min_lr": END}
    optim = Optim(name="lars", lars_form=form, trust=TRUST, weight_decay=DECAY, **rates)
    sizes = {"start": 0, "steps": STEPS, "warmup_steps": WARMUP, "batch_size": 8, "seed": 0}
    steps = train(method, method, build(method, optim), islice(cycle(batches), STEPS), optim=optim, **sizes)
    return [read(step)["loss"] for step in steps]


def embedded(student: nn.ModuleDict, batch: Batch) -> list[Tensor]:
    return [student["projector"](student["backbone"].pooled(view.value)) for view in batch.views]


def simclr(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch) -> Tensor:
    """The sum over both directions of the mean cross-entropy."""
    a, b = (F.normalize(z, dim=1) for z in embedded(student, batch))
    own, places, terms = torch.eye(len(a), dtype=torch.bool), torch.arange(len(a)), []
    for one, other in ((a, b), (b, a)):
        logits = torch.cat([one @ other.T, (one @ one.T).masked_fill(own, -1e9)], dim=1) / 0.1
        terms.append(F.cross_entropy(logits, places))
    return terms[0] + terms[1]


def byol(student: nn.ModuleDict, target: nn.ModuleDict, batch: Batch) -> Tensor:
    """The squared distance of unit vectors, over both directions."""
    predicted = [F.normalize(student["predictor"](z), dim=1) for z in embedded(student, batch)]
    with torch.no_grad():
        told = [F.normalize(z, dim=1) for z in embedded(target, batch)]
    return sum((predicted[view] - told[1 - view]).square().sum(1).mean() for view in range(2))


def vicreg(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch) -> Tensor:
    a, b = embedded(student, batch)
    loss = 25 * (a - b).square().mean()
    for z in (a, b):
        loss = loss + 25 * F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean() / 2
        covariance = torch.cov(z.T)
        loss = loss + (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
    return loss


def swav(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch) -> Tensor:
    pooled = torch.cat([student["backbone"].pooled(view.value) for view in batch.views])
    scores = student["prototypes"](F.normalize(student["projector"](pooled), dim=1)).chunk(len(batch.views))
    loss = torch.zeros((), dtype=torch.float64)
    for large in range(2):
        code = (scores[large].detach() / 0.05).exp().T
        for _ in range(3):
            code = code / code.sum(1, keepdim=True) / len(code)
            code = code / code.sum(0, keepdim=True) / code.shape[1]
        code = (code * code.shape[1]).T
        others = [view for number, view in enumerate(scores) if number != large]
        loss = loss - sum((code * F.log_softmax(view / 0.1, dim=1)).sum(1).mean() for view in others) / len(others) / 2
    return loss


CASES = {
    "simclr": (simclr, "simclr", {"loss_scale": 2.0}),
    "byol": (byol, "byol", {"momentum": 0.9}),
    "vicreg": (vicreg, "byol", {}),
    "swav": (swav, "larc", {"queue": 0, "freeze": 0.2}),
}


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_are_the_authors(name: str, setting) -> None:
    loss, form, hyper = CASES[name]
    method, batch = setting(name, double=True, **hyper)
    batches = [batch, *(setting(name, double=True, seed=seed, **hyper)[1] for seed in (1, 2))]
    parts = {"projector": getattr(method, "expander", None) or method.projector}
    parts |= {"predictor": method.predictor} if name == "byol" else {}
    student = nn.ModuleDict({"backbone": method.backbone, **parts})
    if name == "swav":
        student["prototypes"] = nn.Linear(method.prototypes.shape[1], method.prototypes.shape[0], bias=False)
        student["prototypes"].weight.data = method.prototypes.data
    expected = authors(copy.deepcopy(student).double(), loss, batches, form)
    assert ours(method, batches, form) == pytest.approx(expected, rel=1e-8)
    assert abs(expected[-1] - expected[0]) > 1e-2 * abs(expected[0])
