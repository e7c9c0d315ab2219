"""Depth by a linear layer: loss, errors and guesses against NumPy, training against a plain loop, and its extremes."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from selfsup.errors import DataError
from selfsup.evals.depth import Depth, DepthSet, schedule
from selfsup.evaluator import Features
from selfsup.parts.depth_bins import DepthBins
from selfsup.parts.linear_heads import batches

GRID, SIDE, DIM = 3, 6, 4
TRAIN, VAL = 24, 8
HYPER = Depth.Hyper(bins=32, epochs=1, steps=400, lr=0.01)
BINS = DepthBins(32, 10.0)


def example(*, told_by_tokens: bool) -> Features:
    """Return maps of one depth a token, which its first channel is, or noise; some pixels are unknown or far."""
    draw = np.random.default_rng(0)
    near = draw.uniform(1, 6, (TRAIN + VAL, GRID**2))
    value = draw.normal(size=(*near.shape, DIM)).astype(np.float32)
    if told_by_tokens:
        value[..., 0] = near
    maps = near.reshape(-1, GRID, GRID).repeat(2, 1).repeat(2, 2).astype(np.float32)
    maps[:, 0, 0], maps[:, 5, 5] = 0, 20
    none = np.full(TRAIN + VAL, -1)
    parts = (value[:TRAIN], none[:TRAIN], value[TRAIN:], none[TRAIN:])
    return Features(*parts, classes=0, train_map=maps[:TRAIN], val_map=maps[TRAIN:])


def test_the_loss_is_worked_out() -> None:
    guess, true = torch.tensor([[[1.0, 2.0], [3.0, 9.0]]]), torch.tensor([[[2.0, 2.0], [0.0, 12.0]]])
    difference = np.log(np.array([1.001, 2.001])) - np.log(np.array([2.001, 2.001]))
    expected = math.sqrt(difference.var(ddof=1) + 0.15 * difference.mean() ** 2)
    assert float(BINS.loss(guess, true)) == pytest.approx(expected, rel=1e-5)
    assert float(BINS.loss(guess, torch.zeros(1, 2, 2))) == 0


def test_errors_are_worked_out() -> None:
    guess, true = torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[2.0, 2.0], [2.5, 12.0]])
    rmse, abs_rel, delta1 = BINS.errors(guess, true).tolist()
    assert rmse == pytest.approx(math.sqrt((1 + 0 + 0.25) / 3))
    assert abs_rel == pytest.approx((0.5 + 0 + 0.2) / 3)
    assert delta1 == pytest.approx(2 / 3)
    assert BINS.errors(guess, torch.zeros(2, 2)).isnan().all()


def test_a_guess_is_the_mean_of_bins_by_their_shares() -> None:
    layer = torch.nn.Linear(DIM, 32)
    tokens = torch.randn(2, GRID**2, DIM)
    share = np.maximum(layer(tokens).detach().double().numpy(), 0) + 0.1
    depth = (share / share.sum(-1, keepdims=True)) @ np.linspace(0.001, 10, 32)
    coarse = torch.tensor(depth).reshape(2, 1, GRID, GRID)
    expected = interpolate(coarse, (SIDE, SIDE), mode="bilinear")[:, 0]
    torch.testing.assert_close(BINS.guess(layer(tokens), SIDE).double(), expected, rtol=1e-5, atol=1e-5)


def test_training_is_that_of_a_plain_loop() -> None:
    features, hyper = example(told_by_tokens=True), HYPER.model_copy(update={"steps": 7})
    value = features.train.reshape(-1, DIM).astype(np.float64)
    mean, std = value.mean(0), np.sqrt(value.var(0) + 1e-6)
    scale = (torch.tensor(mean).float(), torch.tensor(std).float())
    layer = Depth(hyper).fit(DepthSet(features.train, features.train_map, *scale), seed=3)

    draw = torch.Generator().manual_seed(3)
    other = torch.nn.Linear(DIM, 32)
    torch.nn.init.normal_(other.weight, std=0.01, generator=draw)
    torch.nn.init.zeros_(other.bias)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1.0, weight_decay=1e-4)
    rates = [1 / 2, 1, 1, *(0.5 + 0.5 * math.cos(math.pi * step / 5) for step in range(1, 5))]
    bins = torch.linspace(0.001, 10, 32)
    for rate, rows in zip(rates, batches(torch.arange(TRAIN), 16, 7, draw), strict=True):
        tokens = (torch.tensor(features.train[rows.numpy()]) - scale[0]) / scale[1]
        weight = other(tokens).clamp(min=0) + 0.1
        depth = (weight / weight.sum(-1, keepdim=True) * bins).sum(-1).view(-1, 1, GRID, GRID)
        true = torch.tensor(features.train_map[rows.numpy()])
        known = (true > 0) & (true < 10)
        guess = interpolate(depth, (SIDE, SIDE), mode="bilinear")[:, 0][known]
        difference = torch.log(guess + 0.001) - torch.log(true[known] + 0.001)
        optimizer.zero_grad()
        torch.sqrt(difference.var() + 0.15 * difference.mean() ** 2).backward()
        optimizer.param_groups[0]["lr"] = 0.01 * rate
        optimizer.step()
    torch.testing.assert_close(layer.weight, other.weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(layer.bias, other.bias, rtol=1e-3, atol=1e-5)


def test_the_rate_rises_for_a_third_of_the_steps() -> None:
    rates = [schedule(step, 90) for step in range(90)]
    assert rates[:30] == pytest.approx(np.arange(1, 31) / 30)
    assert rates[30] == 1
    assert np.all(np.diff(rates[30:]) < 0)
    assert 0 < rates[-1] < 0.002


def test_depth_that_tokens_tell_is_found_and_noise_is_not() -> None:
    clear, noise = (dict(Depth(HYPER).run(example(told_by_tokens=own), seed=0)) for own in (True, False))
    deviation = np.std(example(told_by_tokens=True).val_map[:, 1:5, 1:5])
    assert clear["rmse"] < 0.75 * deviation < 0.9 * noise["rmse"]
    assert clear["delta1"] > noise["delta1"]
    assert clear["abs_rel"] < noise["abs_rel"]


def test_maps_out_of_range_are_refused() -> None:
    features = example(told_by_tokens=True)
    with pytest.raises(DataError, match="no pixel of val has a depth below 10 m"):
        dict(Depth(HYPER).run(features._replace(val_map=features.val_map * 0), seed=0))
