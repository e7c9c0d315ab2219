"""Optimization: parameter groups, the batch rule, schedules, and the three optimizers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from selfsup.method import Method, ParamOptions
from selfsup.parts.schedules import cosine
from selfsup.sections import LarsForm, Optim
from selfsup.sharded import norms

Groups = list[dict[str, Any]]
HEAD = "what no layer is called"  # which timm counts as the layer above all


def build(method: Method, optim: Optim) -> Optimizer:
    """Return the optimizer that `optim` names over trainable weights; call `schedule` before each step."""
    decay_all = optim.decay_all or (optim.name == "lars" and optim.lars_form == "larc")
    groups = param_groups(method, optim.weight_decay, decay_all=decay_all, layer_decay=optim.layer_decay)
    match optim.name:
        case "adamw":  # fused: one pass over the weights, several times faster than the loop on CPUs and GPUs alike
            return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)
        case "sgd":
            return SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=True)
        case "lars":
            return LARS(groups, lr=optim.lr, momentum=optim.momentum, trust=optim.trust, form=optim.lars_form)


def param_groups(method: Method, weight_decay: float, *, decay_all: bool = False, layer_decay: float = 1.0) -> Groups:
    """Group trainable parameters by their options. Biases, norms and scalars do not decay unless `decay_all`.

    layer_decay: as of `by_layer`.
    """
    groups: defaultdict[ParamOptions, list[Tensor]] = defaultdict(list)
    layers = by_layer(method, layer_decay) if layer_decay < 1 else {}
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            options = method.param_options(name, weight)
            if name in layers:
                scale, undecayed = layers[name]
                options = options._replace(
                    lr_scale=options.lr_scale * scale, no_weight_decay=options.no_weight_decay or undecayed
                )
            decayed = (decay_all or weight.ndim > 1) and not options.no_weight_decay
            groups[options._replace(no_weight_decay=not decayed)].append(weight)
    return [
        {
            "params": weights,
            "weight_decay": 0.0 if options.no_weight_decay else options.decay_scale * weight_decay,
            **options._asdict(),
        }
        for options, weights in sorted(groups.items(), key=lambda item: item[0])
    ]


def by_layer(method: Method, decay: float) -> dict[str, tuple[float, bool]]:
    """Return the factor on the learning rate of each weight of timm's encoders, and whether it does not decay at all.

    As in BEiT (arXiv 2106.08254) and MAE: `decay` to the power of the layers above; the embedding is a layer, the final
    norm counts with the head. Layers, class tokens and positions, which do not decay, are those that timm names.
    """
    factors: dict[str, tuple[float, bool]] = {}
    for kind, encoder in method.encoders.items():
        trunk: Any = encoder.trunk
        start = f"encoders.{kind}.trunk."
        if not hasattr(trunk, "group_matcher"):  # from outside
            continue
        weights = iter([*trunk.named_parameters(), (HEAD, None)])
        layers = group_with_matcher(weights, trunk.group_matcher(coarse=False), reverse=True)
        head: int = layers.pop(HEAD)
        undecayed: set[str] = set(trunk.no_weight_decay()) if hasattr(trunk, "no_weight_decay") else set()
        for name, layer in layers.items():
            scale = 1.0 if name.startswith("norm.") else decay ** (head - layer)
            factors[start + name] = scale, name in undecayed
    return factors


def schedule(optimizer: Optimizer, optim: Optim, step: int, *, steps: int, warmup: int, batch: int) -> float:
    """Set learning rates and decays of step 0 <= step < steps, and drop the gradients of frozen weights.

    -> the learning rate of a weight without options of its own. batch: the global one.
    """
    peak, t = peak_lr(optim, batch), step / steps
    lr = lr_at(step, optim, steps=steps, warmup=warmup, peak=peak)
    for group in optimizer.param_groups:
        group["lr"] = group["lr_scale"] * (peak if group["constant_lr"] and step >= warmup else lr)
        scale = group.get("decay_scale", 1.0)  # checkpoints from before it have none
        group["weight_decay"] = 0.0 if group["no_weight_decay"] else scale * decay_at(t, optim)
        if t < group["frozen_until"]:
            for weight in group["params"]:
                weight.grad = None
    return lr


def decay_at(t: float, optim: Optim) -> float:
    """Return the decay: half a cosine to `weight_decay_end`, as DINO's (arXiv 2104.14294), section 3.2."""
    end = optim.weight_decay if optim.weight_decay_end is None else optim.weight_decay_end
    return cosine(t, optim.weight_decay, end)


def peak_lr(optim: Optim, batch: int) -> float:
    """Return the learning rate after warm-up: `lr` at a global batch of `lr_batch`, scaled by `lr_rule`."""
    ratio = batch / optim.lr_batch
    return optim.lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[optim.lr_rule]


def lr_at(step: int, optim: Optim, *, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate of step 0 <= step < steps: linear warm-up, then half a cosine from `peak`, or drops.

    The last warm-up step has the peak; the first is one step of the rise above `warmup_lr`, not at it as in the code of
    MAE (0) and SwAV (0.3): no step is without effect.
    """
    assert 0 <= step < steps, f"step {step} is outside a schedule of {steps} steps"
    if step < warmup:
        return optim.warmup_lr + (peak - optim.warmup_lr) * (step + 1) / warmup
    if optim.drops:
        return peak * optim.drop_factor ** sum(step / steps >= drop for drop in optim.drops)
    return cosine((step - warmup) / (steps - warmup), peak, optim.min_lr)


class LARS(Optimizer):
    """SGD with momentum in which every weight matrix moves in proportion to its own norm.

    You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017, arXiv:1708.03888. Forms, each of
    which made published numbers:
    byol: as BYOL, MoCo v3, Barlow Twins and VICReg have it. Decay joins the gradient before the norm is taken, and 1-D
    parameters are neither adapted nor decayed. Unlike lightly's and timm's, it adapts without weight decay too.
    simclr: the same, but momentum averages steps, each at the learning rate of its time, not gradients.
    larc: eq. 6 of the paper, which adds the norms of gradient and decay, on weights of any rank, all of which decay. It
    is the LARC of NVIDIA's apex without clipping, as in SwAV and DeepCluster v2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        form: LarsForm = "byol",
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "form": form}
        super().__init__(params, options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("form", "byol")  # checkpoints from before there were others

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None, "LARS takes no closure"
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            adapted = [weight for weight in moved if weight.ndim > 1 or group["form"] == "larc"]
            plain = [weight for weight in moved if weight.ndim <= 1 and group["form"] != "larc"]
            if adapted:
                self._move(adapted, self._adapted(adapted, group), group)
            if plain:
                self._move(plain, gradients(plain), group)

    def _adapted(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return gradients with decay, each times its weight's trust ratio."""
        grads, decay = gradients(weights), group["weight_decay"]
        updates = torch._foreach_add(grads, weights, alpha=decay)
        measured = (grads, decay) if group["form"] == "larc" else (updates, 0.0)
        torch._foreach_mul_(updates, trust_ratios(weights, *measured, trust=group["trust"]))
        return list(updates)

    def _move(self, weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        velocities = [self._velocity(weight) for weight in weights]
        inside, outside = (group["lr"], 1.0) if group["form"] == "simclr" else (1.0, group["lr"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates, alpha=inside)
        torch._foreach_add_(weights, velocities, alpha=-outside)

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity


def trust_ratios(weights: Sequence[Tensor], grads: Sequence[Tensor], decay: float, *, trust: float) -> list[Tensor]:
    """-> () for each pair: trust * |weight| / (|grad| + decay * |weight|).

    1 if either norm is zero, so that a weight can leave zero.
    """
    weight_norms, grad_norms = (norms(tensors) for tensors in (weights, grads))
    defined = (weight_norms > 0) & (grad_norms > 0)
    return list(torch.where(defined, trust * weight_norms / (grad_norms + decay * weight_norms), 1.0).unbind())


def gradients(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of weights, of those that have one."""
    return [weight.grad for weight in weights if weight.grad is not None]
