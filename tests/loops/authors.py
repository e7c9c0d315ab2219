"""What the authors' loops share: schedules, optimizers and teachers, written anew or torch's own."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .ours import STEPS, WARMUP, Trained

Loss = Callable[[nn.ModuleDict, nn.ModuleDict, Batch, int], Tensor]  # of student, teacher, batch and step
Rate = Callable[[int], float]  # at a step
Move = Callable[[int], None]  # an optimizer's step
Names = Mapping[str, str]  # of parts of a network, to theirs in our objective


def cosine(step: float, start: float, end: float, steps: int = STEPS) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def warm(peak: float, *, begin: float = 0.0, end: float = 0.0) -> Rate:
    """Return a rise from `begin` to the peak at the last step of the warm-up, then half a cosine."""

    def rate(step: int) -> float:
        if step < WARMUP:
            return begin + (peak - begin) * (step + 1) / WARMUP
        return cosine(step - WARMUP, peak, end, STEPS - WARMUP)

    return rate


def trainable(student: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in student.named_parameters() if weight.requires_grad)


def to_one(start: float) -> Rate:
    """Return BYOL's momentum of the target, which ends at 1."""
    return lambda step: cosine(step, start, 1.0)


BYOLS = to_one(0.9)


def learn(
    student: nn.ModuleDict,
    loss: Loss,
    batches: list[Batch],
    move: Move,
    *,
    teacher: nn.ModuleDict | None = None,
    momentum: Rate = BYOLS,
) -> tuple[list[float], nn.ModuleDict]:
    """Train; return the losses and the teacher, which begins as the student unless it is given."""
    teacher = (teacher or copy.deepcopy(student)).requires_grad_(False)
    losses = []
    for step, batch in enumerate(islice(cycle(batches), STEPS)):
        student.zero_grad()
        value = loss(student, teacher, batch, step)
        value.backward()
        losses.append(value.item())
        with torch.no_grad():
            move(step)
            for part, module in teacher.items():
                for old, new in zip(module.parameters(), student[part].parameters(), strict=True):
                    old.mul_(momentum(step)).add_((1 - momentum(step)) * new)
    return losses, teacher


def copied(method: Method, names: Names) -> nn.ModuleDict:
    """Return copies of parts of our objective."""
    return nn.ModuleDict({part: copy.deepcopy(method.get_submodule(path)) for part, path in names.items()})


def same_gradients(method: Method, network: nn.ModuleDict, names: Names) -> None:
    """Compare the gradients of an objective's trained weights with those of copies, in double precision."""
    for part, path in names.items():
        theirs = dict(network[part].named_parameters())
        for name, weight in method.get_submodule(path).named_parameters():
            if weight.requires_grad:
                torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)


def on_gpus(network: nn.ModuleDict) -> nn.ModuleDict:
    """Normalize the halves of eight samples apart, as two GPUs do; running statistics are their mean."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.forward = partial(_halves, norm)
    return network


def _halves(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(V * 8, ...) -> the same, V views of the same samples"""
    gpus, statistics = x.unflatten(0, (-1, 2, 4)).unbind(1), torch.stack([norm.running_mean, norm.running_var])
    moved = [statistics.clone() for _ in gpus]
    values = [
        F.batch_norm(gpu.flatten(0, 1), *own, norm.weight, norm.bias, training=True).unflatten(0, (-1, 4))
        for gpu, own in zip(gpus, moved, strict=True)
    ]
    for old, new in zip((norm.running_mean, norm.running_var), torch.stack(moved).mean(0), strict=True):
        old.copy_(new)
    return torch.stack(values, dim=1).flatten(0, 2)


def named(network: nn.ModuleDict, names: Names) -> dict[str, nn.Module]:
    """Return the parts of a network by their names in our objective."""
    return {path: network[part] for part, path in names.items()}


def trained(losses: list[float], parts: Mapping[str, nn.Module | Tensor]) -> Trained:
    """Return the result of a loop. parts: modules and tensors by their names in our objective."""
    state = {}
    for path, part in parts.items():
        named = {path: part} if isinstance(part, Tensor) else part.state_dict(prefix=f"{path}.")
        state |= {name: value for name, value in named.items() if "num_batches" not in name}
    return Trained(losses, state)


def lars(
    student: nn.Module,
    form: str,
    rate: Rate,
    *,
    decay: float,
    trust: float = 0.001,
    scale: Callable[[str, Tensor], float] = lambda *_: 1.0,
    waits: Callable[[str, int], bool] = lambda *_: False,
) -> Move:
    """Return LARS: SwAV's LARC adapts all weights; the others matrices; SimCLR's has the rate in the momentum.

    scale: of the rate, for a weight. waits: whether a weight does not move at a step.
    """
    velocity = {name: torch.zeros_like(weight) for name, weight in trainable(student)}

    def change(weight: Tensor, grad: Tensor) -> Tensor:
        if form != "larc" and weight.ndim <= 1:
            return grad
        decayed, length = grad + decay * weight, weight.norm().item()
        slope = grad.norm().item() + decay * length if form == "larc" else decayed.norm().item()
        return decayed * trust * length / slope if length and slope else decayed

    def move(step: int) -> None:
        for name, weight in trainable(student):
            if waits(name, step):
                continue
            pace = rate(step) * scale(name, weight)
            inside, outside = (pace, 1.0) if form == "simclr" else (1.0, pace)
            velocity[name] = 0.9 * velocity[name] + inside * change(weight, weight.grad)
            weight.sub_(outside * velocity[name])

    return move


def sgd(
    student: nn.Module,
    rate: Callable[[int, str], float],
    *,
    decay: float,
    least: int = 0,
    momentum: float = 0.9,
    waits: Callable[[str, int], bool] = lambda *_: False,
) -> Move:
    """Return torch's SGD. rate: at a step, of a weight. least: dimensions from which on a weight decays."""
    groups = [
        {"params": [weight], "name": name, "weight_decay": decay if weight.ndim >= least else 0.0}
        for name, weight in trainable(student)
    ]
    optimizer = torch.optim.SGD(groups, momentum=momentum)

    def move(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, group["name"])
            if waits(group["name"], step):
                group["params"][0].grad = None
        optimizer.step()

    return move


def adamw(
    student: nn.Module,
    rate: Rate,
    decay: Callable[[int, str, Tensor], float],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    scale: Callable[[str], float] = lambda _: 1.0,
    clip: Callable[[], None] = lambda: None,
    waits: Callable[[str, int], bool] = lambda *_: False,
) -> Move:
    """Return torch's AdamW, with a decay and a scale of the rate for each weight; gradients are clipped before it."""
    groups = [{"params": [weight], "name": name} for name, weight in trainable(student)]
    optimizer = torch.optim.AdamW(groups, betas=betas)

    def move(step: int) -> None:
        clip()
        for group in optimizer.param_groups:
            [weight], name = group["params"], group["name"]
            group["lr"], group["weight_decay"] = rate(step) * scale(name), decay(step, name, weight)
            if waits(name, step):
                weight.grad = None
        optimizer.step()

    return move
