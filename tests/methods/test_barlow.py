"""Barlow Twins: its loss against lightly's, its learning rates and its views."""

import pytest
import torch
from lightly.loss import BarlowTwinsLoss

from selfsup.method import load
from selfsup.optim import build, schedule
from selfsup.sections import Optim


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
