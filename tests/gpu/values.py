"""Loss and gradient of every objective on a device beside the CPU's, in fp32 and bf16.

Both are compared with the same step in double precision on the CPU. A device may err as much as the CPU errs, times
FACTOR: it adds up in another order, which changes how roundings fall but not how many there are. It may always err as
much as LEAST says, since a ReLU that a rounding decides otherwise changes a gradient at once: between oneDNN's kernels
and torch's own, on one CPU, one weight's gradient was off by up to 2e-2 in a CNN and 7e-5 in a ViT, and a loss by 5e-6
(all objectives, torch 2.15); of MaskFeat, whose histograms sort angles into bins, by 6e-2, its loss by 6e-5. What is
wrong by a formula, or for a copy that was not waited for, is wrong by more. TF32 is off.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import small
import torch
from gpu.place import Row, Setup, attempt, changed, placed
from precision import double_precision
from torch import Tensor

from selfsup.batch import Batch
from selfsup.method import Method, load, names
from selfsup.train import Precision, backward

FACTOR: dict[Precision, float] = {"fp32": 16.0, "bf16": 4.0}
LEAST: dict[tuple[Precision, str], tuple[float, float]] = {  # of the errors of loss and gradient
    ("fp32", "vit"): (2.0**-13, 2.0**-9),
    ("fp32", "cnn"): (2.0**-13, 2.0**-4),
    ("fp32", "hog"): (2.0**-13, 2.0**-3),
    ("bf16", "hog"): (2.0**-6, 2.0**-3),
    ("bf16", "vit"): (2.0**-6, 2.0**-4),
    ("bf16", "cnn"): (2.0**-6, 2.0**-4),
}
TINY = ("ijepa", "simclr")


class Values(NamedTuple):
    """The loss of a step, and its gradients by the names of weights; in double precision, on the CPU."""

    loss: Tensor
    grads: dict[str, Tensor]


class Deviation(NamedTuple):
    """Relative errors of the loss, and of the gradient of the weight whose is the largest, by name."""

    loss: float
    grad: float
    weight: str


def cases(tiny: bool) -> list[tuple[str, str]]:
    """Return objectives, each with a kind of backbone that it takes."""
    return [(name, kind) for name in (TINY if tiny else names()) for kind in load(name).backbones]


def rows(setup: Setup) -> Iterator[Row]:
    """Yield, for each objective, backbone and precision, how far the device is off, and how far it may be."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name, kind in cases(setup.tiny):
        exact: list[Values] = []
        for precision in FACTOR:
            titles = {"objective": name, "backbone": kind, "precision": precision}
            yield attempt(titles, partial(_row, name, kind, precision, setup.device, exact))


def _row(name: str, kind: str, precision: Precision, device: str, exact: list[Values]) -> Row:
    """-> errors and limits. exact: empty, or the values in double precision, which all precisions share."""
    method, batch = small.setting(name, kind)
    exact += [] if exact else [double_values(method, batch)]
    host = deviation(values(copy.deepcopy(method), batch, precision), exact[0])
    beside = deviation(values(*placed(method, batch, device), precision), exact[0])
    return verdict(beside, host, LEAST[precision, "hog" if name == "maskfeat" else kind], FACTOR[precision])


def verdict(device: Deviation, host: Deviation, least: tuple[float, float], factor: float) -> Row:
    """Return the errors of a device with their limits, and whether it keeps them."""
    limits = [max(factor * error, low) for error, low in zip((host.loss, host.grad), least, strict=True)]
    kept = device.loss <= limits[0] and device.grad <= limits[1]  # nan keeps none
    numbers = {"loss_error": device.loss, "loss_limit": limits[0], "grad_error": device.grad, "grad_limit": limits[1]}
    return {"ok": kept, **numbers, "weight": device.weight}


def values(method: Method, batch: Batch, precision: Precision = "fp32") -> Values:
    """Return the values of an objective's first step, on the device that it is on."""
    loss = backward(method, batch, precision=precision).loss
    trained = {name: weight.grad for name, weight in method.named_parameters() if weight.requires_grad}
    grads = {name: grad.double().cpu() for name, grad in trained.items() if grad is not None}
    return Values(loss.double().cpu(), grads)


def double_values(method: Method, batch: Batch) -> Values:
    """Return the values of the same step in double precision."""
    with double_precision():
        double = changed(batch, lambda value: value.double() if value.is_floating_point() else value)
        return values(copy.deepcopy(method).double(), double)


def deviation(values: Values, exact: Values) -> Deviation:
    """Return how far values are off. A gradient's error is relative to its norm, or a thousandth of that of all."""
    if values.grads.keys() != exact.grads.keys():
        return Deviation(float("inf"), float("inf"), "not the same weights have gradients")
    least = torch.stack([grad.norm() for grad in exact.grads.values()]).norm() / 1000
    errors = {
        name: float((values.grads[name] - grad).norm() / grad.norm().maximum(least))
        for name, grad in exact.grads.items()
    }
    worst = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))  # nan first
    scale = exact.loss.abs().clamp_min(0.1)
    return Deviation(float((values.loss - exact.loss).abs() / scale), errors[worst], worst)
