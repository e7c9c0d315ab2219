"""Barlow Twins: its loss against lightly's, and ten steps of its recipe against the authors' on 16 GPUs, in a loop."""

import copy
import math
from itertools import repeat
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss
from torch import Tensor

from selfsup.method import load
from selfsup.optim import build, schedule
from selfsup.sections import Optim
from selfsup.spec import read
from selfsup.train import train

GPUS, BATCH, STEPS = 16, 2048, 10


def test_the_loss_is_lightlys_of_the_projected_views(setting) -> None:
    method, batch = setting("barlow", "cnn", redundancy=0.02)
    one, two = (method.projector(method.backbone.pooled(view.value)) for view in batch.views)
    torch.testing.assert_close(method(batch).loss, BarlowTwinsLoss(lambda_param=0.02)(one, two))


def test_biases_and_norms_have_the_papers_learning_rate(setting) -> None:
    """Section 2.2: 0.2 for weights, 0.0048 for biases and norms, both times batch / 256; these do not decay."""
    method, _ = setting("barlow", "cnn")
    told = Optim(name="lars", lr=0.2, weight_decay=1.5e-6)
    optimizer = build(method, told)
    schedule(optimizer, told, 0, steps=10, warmup=0, batch=2048)
    found = {
        weight.ndim > 1: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(optimizer.param_groups) == 2
    assert found == {True: pytest.approx((1.6, 1.5e-6)), False: pytest.approx((0.0384, 0.0))}


def test_blur_is_asked_of_both_views_in_the_papers_proportion() -> None:
    method = load("barlow")
    first, second = method.views(method.Hyper()).specs
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert {crop.blur for crop in method.views(method.Hyper(blur=0.0)).specs} == {0.0}


def averaged(one: Tensor, two: Tensor) -> Tensor:
    """What DistributedDataParallel makes of GPUS losses, in each of which other GPUs' correlations are constants."""
    one, two = (F.batch_norm(view, None, None, training=True) for view in (one, two))
    parts = torch.stack([a.T @ b / len(one) for a, b in zip(one.chunk(GPUS), two.chunk(GPUS), strict=True)])
    losses = []
    for own in parts:
        correlation = own + (parts.sum(0) - own).detach()
        on = (correlation.diagonal() - 1).square().sum()
        losses.append(on + 0.0051 * (correlation.square().sum() - correlation.diagonal().square().sum()))
    return torch.stack(losses).mean()


def authors_step(weight: Tensor, velocity: Tensor, share: float) -> None:
    """LARS at eta 0.001, rates of 0.2 and 0.0048, a decay of 1e-6; share: of the peak, now."""
    step, rate = weight.grad, share * BATCH / 256 * (0.0048 if weight.ndim == 1 else 0.2)
    if weight.ndim > 1:
        step = step + 1e-6 * weight
        step = step * (0.001 * weight.norm() / step.norm())
    velocity.mul_(0.9).add_(step)
    weight.sub_(rate * velocity)


def test_ten_steps_of_the_recipe_are_the_authors_on_16_gpus(setting) -> None:
    spec = read("in1k/barlow")
    hyper = {"redundancy": spec.hyper.redundancy, "bias_lr": spec.hyper.bias_lr}
    method, batch = setting("barlow", "narrow cnn", samples=16, double=True, **hyper)
    with torch.no_grad():  # norms apart from 1 and 0, so that each has a gradient of its own
        for weight in method.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    theirs = copy.deepcopy(method)
    with patch.object(Tensor, "float", Tensor.double):  # the loss is in single precision
        settings = {"optim": spec.optim, "start": 0, "steps": STEPS, "warmup_steps": 0, "batch_size": BATCH, "seed": 0}
        for _ in train(method, method, build(method, spec.optim), repeat(batch), **settings):
            pass
    velocities = [torch.zeros_like(weight) for weight in theirs.parameters()]
    for step in range(STEPS):
        theirs.zero_grad()
        averaged(*(theirs.projector(theirs.backbone.pooled(view.value)) for view in batch.views)).backward()
        half = 0.5 * (1 + math.cos(math.pi * step / STEPS))
        with torch.no_grad():
            for weight, velocity in zip(theirs.parameters(), velocities, strict=True):
                authors_step(weight, velocity, half + 0.001 * (1 - half))
    torch.testing.assert_close(dict(method.named_parameters()), dict(theirs.named_parameters()), rtol=1e-7, atol=1e-9)
