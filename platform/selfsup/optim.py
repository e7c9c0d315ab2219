"""How weights move: parameter groups, the batch rule, the schedule, and the three optimizers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from selfsup.method import Method, ParamOptions
from selfsup.parts.schedules import cosine
from selfsup.sections import Optim

Groups = list[dict[str, Any]]


def build(method: Method, optim: Optim) -> Optimizer:
    """The optimizer that `optim` names, over what is trainable; `schedule` is called before each step."""
    groups = param_groups(method, optim.weight_decay, decay_all=optim.decay_all)
    match optim.name:
        case "adamw":  # fused: one pass over the weights, several times faster than the loop on CPUs and GPUs alike
            return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)
        case "sgd":
            return SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
        case "lars":
            return LARS(groups, lr=optim.lr, momentum=optim.momentum, trust=optim.trust)


def param_groups(method: Method, weight_decay: float, *, decay_all: bool = False) -> Groups:
    """Group trainable parameters by their options. Biases, norms and scalars do not decay unless `decay_all`."""
    groups: defaultdict[ParamOptions, list[Tensor]] = defaultdict(list)
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            options = method.param_options(name, weight)
            decayed = (decay_all or weight.ndim > 1) and not options.no_weight_decay
            groups[options._replace(no_weight_decay=not decayed)].append(weight)
    return [
        {"params": weights, "weight_decay": 0.0 if options.no_weight_decay else weight_decay, **options._asdict()}
        for options, weights in sorted(groups.items(), key=lambda item: item[0])
    ]


def schedule(optimizer: Optimizer, optim: Optim, step: int, *, steps: int, warmup: int, batch: int) -> float:
    """Set learning rates and decays of step 0 <= step < steps, and drop the gradients of frozen weights.

    -> the learning rate of a weight without options of its own. batch: the global one.
    """
    peak, t = peak_lr(optim, batch), step / steps
    lr = lr_at(step, steps=steps, warmup=warmup, peak=peak, floor=optim.min_lr)
    for group in optimizer.param_groups:
        group["lr"] = group["lr_scale"] * (peak if group["constant_lr"] and step >= warmup else lr)
        group["weight_decay"] = 0.0 if group["no_weight_decay"] else decay_at(t, optim)
        if t < group["frozen_until"]:
            for weight in group["params"]:
                weight.grad = None
    return lr


def decay_at(t: float, optim: Optim) -> float:
    """A half cosine from `weight_decay` to `weight_decay_end`, as DINO's (arXiv 2104.14294), section 3.2."""
    end = optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end
    return cosine(t, optim.weight_decay, end)


def peak_lr(optim: Optim, batch: int) -> float:
    """The learning rate after warm-up for a global batch: `lr` holds at `lr_batch`, `lr_rule` says how it grows."""
    ratio = batch / optim.lr_batch
    return optim.lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[optim.lr_rule]


def lr_at(step: int, *, steps: int, warmup: int, peak: float, floor: float = 0.0) -> float:
    """The learning rate of step 0 <= step < steps: linear warm-up, then from `peak` down a half cosine to `floor`.

    The last warm-up step has the peak; the first has peak / warmup, not 0 as in MAE's code: no step is without effect.
    """
    assert 0 <= step < steps, f"step {step} is outside a schedule of {steps} steps"
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine((step - warmup) / (steps - warmup), peak, floor)


class LARS(Optimizer):
    """SGD with momentum in which every weight matrix moves in proportion to its own norm.

    You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017, arXiv:1708.03888, in the form that
    SimCLR, BYOL and MoCo v3 use: decay joins the gradient before the norm is taken (eq. 6 of the paper adds two norms),
    and 1-D parameters are neither adapted nor decayed. Unlike lightly's and timm's, it adapts without weight decay too.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None, "LARS takes no closure"
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            matrices, vectors = ([weight for weight in moved if (weight.ndim > 1) is kind] for kind in (True, False))
            if matrices:
                self._move(matrices, self._adapted(matrices, group), group)
            if vectors:
                self._move(vectors, [vector.grad for vector in vectors if vector.grad is not None], group)

    def _adapted(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Gradients with decay, each at its weight's trust ratio."""
        updates = torch._foreach_add(
            [weight.grad for weight in weights if weight.grad is not None], weights, alpha=group["weight_decay"]
        )
        torch._foreach_mul_(updates, trust_ratios(weights, updates, group["trust"]))
        return list(updates)

    def _move(self, weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        velocities = [self._velocity(weight) for weight in weights]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(weights, velocities, alpha=-group["lr"])

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity


def trust_ratios(weights: Sequence[Tensor], updates: Sequence[Tensor], trust: float) -> list[Tensor]:
    """-> () for each pair: trust * |weight| / |update|; 1 if either is zero, so that a weight can leave zero."""
    weight_norms, update_norms = (torch.stack(torch._foreach_norm(list(tensors))) for tensors in (weights, updates))
    defined = (weight_norms > 0) & (update_norms > 0)
    return list(torch.where(defined, trust * weight_norms / update_norms, 1.0).unbind())
