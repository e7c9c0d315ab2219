"""The linear probe against scikit-learn's logistic regression and torch's SGD, and what it must not look at."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from selfsup.errors import DataError
from selfsup.evals.linear import Linear
from selfsup.evaluator import Features, numbers
from selfsup.parts import linear_probe
from selfsup.parts.linear_heads import Heads, descend, passes


def digits() -> Features:
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order].astype(np.float32), label[order].astype(np.int64)
    return Features(value[:1000], label[:1000], value[1000:], label[1000:], classes=10)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_that_of_logistic_regression(seed: int) -> None:
    """Within 1.5 points on 797 samples (standard error 0.8): one is regularised by stopping, the other by a norm."""
    features = digits()
    scale = StandardScaler().fit(features.train)
    reference = LogisticRegression(max_iter=1000).fit(scale.transform(features.train), features.train_label)
    expected = 100 * reference.score(scale.transform(features.val), features.val_label)
    found = numbers(dict(Linear(Linear.Hyper()).run(features, seed=seed)))
    assert found["top1"] == pytest.approx(expected, abs=1.5)
    assert found["lr"] in Linear.Hyper().lrs


def test_val_is_never_looked_at() -> None:
    features, hyper = digits(), Linear.Hyper(epochs=3)
    shuffled = features._replace(val=features.val[::-1] * 7, val_label=features.val_label * 0)
    first, second = linear_probe.fit(features, hyper, seed=0), linear_probe.fit(shuffled, hyper, seed=0)
    assert torch.equal(first.weight, second.weight)
    assert first.lr == second.lr


def test_a_tenth_of_train_trains_no_head() -> None:
    """Labels are noise in 300 dimensions: 180 samples are fitted perfectly, 20 held out can only be guessed."""
    draw = np.random.default_rng(0)
    value, label = draw.normal(size=(200, 300)).astype(np.float32), draw.integers(0, 2, 200)
    features = Features(value, label, value, label, classes=2)
    probe = linear_probe.fit(features, Linear.Hyper(lrs=(0.1,)), seed=0)
    right = (probe.logits(torch.as_tensor(value)).argmax(1).numpy() == label).sum()
    assert 180 <= right < 200


def test_each_head_is_torchs_sgd_alone() -> None:
    """The heads of a grid, side by side, against one nn.Linear trained by torch.optim.SGD and autograd per rate."""
    features = digits()
    value, label = torch.as_tensor(features.train) / 16, torch.as_tensor(features.train_label)
    lrs, epochs, batch = [0.01, 0.3], 3, 250
    weight, bias = heads = Heads(torch.zeros(64, 2, 10), torch.zeros(2, 10))
    steps = passes([value.numpy()], label, torch.arange(1000), batch, 4 * epochs, torch.Generator().manual_seed(0))
    descend([(slice(None), heads)], steps, torch.tensor(lrs), 4 * epochs)
    for head, lr in enumerate(lrs):
        layer = nn.Linear(64, 10)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * 4)
        draw = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for rows in torch.randperm(1000, generator=draw).split(batch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(value[rows]), label[rows]).backward()
                optimizer.step()
                schedule.step()
        torch.testing.assert_close(weight[:, head].T, layer.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bias[head], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def probed(value: torch.Tensor, label: torch.Tensor, parts: list[torch.Tensor], lr: float) -> nn.Linear:
    """Train MAE's head by torch's SGD: momentum, no weight decay, half a cosine. parts: samples of each step."""
    layer = nn.Linear(64, 10, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, weight_decay=0)
    for step, rows in enumerate(parts):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / len(parts)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(value[rows]), label[rows]).backward()
        optimizer.step()
    return layer.requires_grad_(False)


def test_the_whole_linear_probe_is_a_loop_over_its_rates() -> None:
    """100 of 1000 samples choose, 900 train for 20 epochs of 4 steps; each feature by its mean and deviation there."""
    features, lrs = digits(), [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3]
    features = features._replace(train=features.train.astype(np.float64), val=features.val.astype(np.float64))
    draw = torch.Generator().manual_seed(7)
    held, rest = torch.randperm(1000, generator=draw).split([100, 900])
    parts = [rest[rows] for _ in range(20) for rows in torch.randperm(900, generator=draw).split(225)]
    train, label = torch.as_tensor(features.train), torch.as_tensor(features.train_label)
    mean, deviation = train[rest].mean(0), (train[rest].var(0, unbiased=False) + 1e-6).sqrt()
    train, val = (train - mean) / deviation, (torch.as_tensor(features.val) - mean) / deviation
    heads = {lr: probed(train, label, parts, lr) for lr in lrs}
    losses = {lr: nn.functional.cross_entropy(head(train[held]), label[held]).item() for lr, head in heads.items()}
    best = min(lrs, key=losses.__getitem__)
    top1 = 100 * (heads[best](val).argmax(1).numpy() == features.val_label).mean()
    probe = Linear(Linear.Hyper(epochs=20))
    assert numbers(dict(probe.run(features, seed=7))) == {"top1": pytest.approx(top1, abs=1e-9), "lr": best}
    found = linear_probe.fit(features, probe.hyper, seed=7)
    torch.testing.assert_close(found.weight.T, heads[best].weight, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.bias, heads[best].bias, rtol=1e-9, atol=1e-11)


def test_a_rate_that_diverges_is_not_chosen_and_harms_no_other() -> None:
    features = digits()
    alone = linear_probe.fit(features, Linear.Hyper(lrs=(0.03,), epochs=5), seed=0)
    beside = linear_probe.fit(features, Linear.Hyper(lrs=(1e38, 0.03), epochs=5), seed=0)
    assert beside.lr == 0.03
    torch.testing.assert_close(beside.weight, alone.weight)


def test_a_constant_feature_does_no_harm() -> None:
    features = digits()
    assert (features.train.std(0) == 0).any()  # the corners of a digit are always white
    assert torch.isfinite(linear_probe.fit(features, Linear.Hyper(epochs=1), seed=0).weight).all()


def test_one_sample_is_too_few() -> None:
    one = Features(np.ones((1, 2), np.float32), np.array([0]), np.ones((1, 2), np.float32), np.array([0]), classes=2)
    with pytest.raises(DataError, match="it needs 2 or more, not 1"):
        linear_probe.fit(one, Linear.Hyper(), seed=0)


@pytest.mark.parametrize("lrs", [(), (0.1, 0.0), (-1.0,)])
def test_rates_that_are_none_are_refused(lrs: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="lrs"):
        Linear.Hyper(lrs=lrs)
