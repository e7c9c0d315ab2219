"""The attentive probe against torch's attention trained by torch.optim.AdamW, one head of the grid at a time."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from selfsup import evaluator
from selfsup.errors import DataError
from selfsup.evals.attentive import Attentive, Probes, TokenSet, gradient
from selfsup.evals.linear import Linear
from selfsup.evaluator import Features, numbers
from selfsup.parts import moments

LRS, DECAYS = (0.002, 0.05), (0.0, 0.1)
GRID = list(product(LRS, DECAYS))


class PlainProbe(nn.Module):
    """AIM's pooling and a linear layer, as keys and values of every token and torch's own attention."""

    def __init__(self, start: Probes) -> None:
        super().__init__()
        (query, key, value, weight, bias) = (part[0].clone() for part in start)
        self.query, self.key, self.value = (nn.Parameter(part.flatten(0, 1)) for part in (query, key, value))
        self.weight, self.bias, self.heads = nn.Parameter(weight), nn.Parameter(bias[0]), len(query)

    def forward(self, tokens: Tensor) -> Tensor:
        split = (len(tokens), -1, self.heads, self.query.numel() // self.heads)
        query = self.query.expand(len(tokens), -1).view(split).transpose(1, 2)
        key, value = ((tokens @ part.T).view(split).transpose(1, 2) for part in (self.key, self.value))
        pooled = nn.functional.scaled_dot_product_attention(query, key, value)
        return pooled.transpose(1, 2).flatten(1) @ self.weight + self.bias

    def tensors(self) -> list[Tensor]:
        return [self.query, self.key, self.value, self.weight, self.bias]


def noise(number: int, *, tokens: int = 5, dim: int = 12, classes: int = 3, seed: int = 0) -> Features:
    """Return tokens and labels that have nothing in common, in float64; val is as large as train."""
    draw = np.random.default_rng(seed)
    value, label = draw.normal(2.0, 3.0, (2 * number, tokens, dim)), draw.integers(0, classes, 2 * number)
    return Features(value[:number], label[:number], value[number:], label[number:], classes)


def needle(number: int) -> Features:
    """Return samples of sixteen tokens, one of which is marked and of the sample's class; the others are of any.

    The classes of the others are as many of each in every sample, so that means are the same for all samples.
    """
    draw, rows = np.random.default_rng(0), np.arange(2 * number)
    label, kind = rows % 4, np.tile(np.arange(16) % 4, (2 * number, 1))
    value = np.concatenate([np.eye(4)[kind], np.zeros((2 * number, 16, 1))], 2).astype(np.float32)
    value[rows, 4 * draw.integers(0, 4, 2 * number) + label, 4] = 1
    value = np.take_along_axis(value, draw.random((2 * number, 16, 1)).argsort(1), 1)
    return Features(value[:number], label[:number], value[number:], label[number:], 4)


def begun(features: Features, probe: Attentive, number: int, seed: int = 0) -> tuple[Probes, TokenSet]:
    dim = features.train.shape[2]
    train = TokenSet(
        features.train,
        torch.as_tensor(features.train_label),
        torch.zeros(dim, dtype=torch.float64),
        torch.ones(dim, dtype=torch.float64),
    )
    return probe.begin(number, train, features.classes, torch.Generator().manual_seed(seed)), train


def plainly_trained(
    start: Probes, tokens: Tensor, label: Tensor, parts: list[Tensor], lr: float, decay: float
) -> PlainProbe:
    """Train one probe by torch.optim.AdamW: CAPI's betas, no decay of the bias, a tenth of warm-up, half a cosine."""
    probe = PlainProbe(start)
    decayed = {"params": probe.tensors()[:-1], "weight_decay": decay}
    optimizer = torch.optim.AdamW([decayed, {"params": [probe.bias], "weight_decay": 0.0}], betas=(0.9, 0.95))
    warmup = np.linspace(0, 1, len(parts) // 10)
    shares = np.concatenate([warmup, (np.cos(np.linspace(0, np.pi, len(parts) - len(warmup))) + 1) / 2])
    for rows, share in zip(parts, shares, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        optimizer.zero_grad()
        nn.functional.cross_entropy(probe(tokens[rows]), label[rows]).backward()
        optimizer.step()
    return probe.requires_grad_(False)


def flat(probes: Probes, index: int) -> list[Tensor]:
    query, key, value, weight, bias = (part[index] for part in probes)
    return [query.flatten(), key.flatten(0, 1), value.flatten(0, 1), weight, bias[0]]


def test_value_and_gradient_are_those_of_keys_and_values_made_of_every_token() -> None:
    features = noise(20)
    probes, train = begun(features, Attentive(Attentive.Hyper(head_width=4)), 2)
    assert probes.query.shape == (2, 3, 4)
    tokens, label = train.read(torch.arange(20))
    plain = PlainProbe(probes)
    expected = plain(tokens)
    for logits in probes.logits(tokens):
        torch.testing.assert_close(logits, expected)
    nn.functional.cross_entropy(expected, label).backward()
    for index in range(2):
        for slope, tensor in zip(flat(Probes(*gradient(probes, tokens, label)), index), plain.tensors(), strict=True):
            torch.testing.assert_close(slope, tensor.grad.view_as(slope))


def test_value_is_that_of_torchs_multihead_attention() -> None:
    """Without projections of query and output."""
    features = noise(8)
    probes, train = begun(features, Attentive(Attentive.Hyper(head_width=6)), 1)
    tokens, _ = train.read(torch.arange(8))
    attention = nn.MultiheadAttention(12, 2, bias=False, batch_first=True, dtype=torch.float64)
    query, key, value, weight, bias = flat(probes, 0)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([torch.eye(12), key, value]))
        attention.out_proj.weight.copy_(torch.eye(12))
        pooled, _ = attention(query.expand(8, 1, 12), tokens, tokens)
    torch.testing.assert_close(probes.logits(tokens)[0], pooled[:, 0] @ weight + bias)


@pytest.mark.parametrize("steps", [2, 3, 23])
def test_each_probe_of_a_grid_is_trained_as_one_alone_by_torchs_adamw(steps: int) -> None:
    """Two batches an epoch: 23 steps are eleven epochs and a half, two of them warm-up."""
    features = noise(30)
    trainer = Attentive(Attentive.Hyper(head_width=4, epochs=1, steps=steps, batch=15))
    probes, train = begun(features, trainer, 4)
    start, draw = Probes(*(weight.clone() for weight in probes)), torch.Generator().manual_seed(5)
    trainer.descend(probes, GRID, train, torch.arange(30), draw)
    draw = torch.Generator().manual_seed(5)
    parts = [rows for _ in range(12) for rows in torch.randperm(30, generator=draw).split(15)][:steps]
    for index, (lr, decay) in enumerate(GRID):
        plain = plainly_trained(start, torch.as_tensor(features.train), train.label, parts, lr * 15 / 256, decay)
        for trained, expected in zip(flat(probes, index), plain.tensors(), strict=True):
            torch.testing.assert_close(trained, expected.view_as(trained), rtol=1e-9, atol=1e-12)


def test_the_whole_probe_is_a_loop_over_its_grid() -> None:
    """6 of 60 samples choose; each channel is standardised by its moments over all tokens of the other 54."""
    features, hyper = noise(60), Attentive.Hyper(lrs=LRS, weight_decays=DECAYS, epochs=5, steps=1, batch=27)
    draw = torch.Generator().manual_seed(7)
    held_out, rest = torch.randperm(60, generator=draw).split([6, 54])
    train, val = torch.as_tensor(features.train), torch.as_tensor(features.val)
    mean, variance = train[rest].mean((0, 1)), train[rest].flatten(0, 1).var(0, unbiased=False)
    train, val = (train - mean) / (variance + 1e-6).sqrt(), (val - mean) / (variance + 1e-6).sqrt()
    data = TokenSet(features.train, torch.as_tensor(features.train_label), mean, variance)
    start = Attentive(hyper).begin(1, data, 3, draw)
    parts = [rest[rows] for _ in range(5) for rows in torch.randperm(54, generator=draw).split(27)]
    probes = {grid: plainly_trained(start, train, data.label, parts, grid[0] * 27 / 256, grid[1]) for grid in GRID}
    losses = {
        grid: nn.functional.cross_entropy(probe(train[held_out]), data.label[held_out]).item()
        for grid, probe in probes.items()
    }
    best = min(GRID, key=losses.__getitem__)
    top1 = 100 * (probes[best](val).argmax(1).numpy() == features.val_label).mean()
    expected = {"top1": pytest.approx(top1, abs=1e-9), "lr": best[0], "weight_decay": best[1]}
    assert numbers(dict(Attentive(hyper).run(features, seed=7))) == expected


def test_attention_finds_the_token_that_tells_the_class_where_means_cannot() -> None:
    features = needle(300)
    pooled = features._replace(train=features.train.mean(1), val=features.val.mean(1))
    assert np.ptp(pooled.train, axis=0).max() < 1e-6
    hyper = Attentive.Hyper(lrs=(0.05,), weight_decays=(1e-3,), steps=150)
    assert numbers(dict(Attentive(hyper).run(features, seed=0)))["top1"] == 100
    assert numbers(dict(Linear(Linear.Hyper(epochs=5)).run(pooled, seed=0)))["top1"] < 40


def test_separable_tokens_are_told_apart_and_noise_is_not() -> None:
    """200 guesses of four classes: a standard error of 3 points."""
    features = noise(200, classes=4)
    hyper = Attentive.Hyper(lrs=(1e-3, 1e-2), steps=60)
    assert numbers(dict(Attentive(hyper).run(features, seed=0)))["top1"] == pytest.approx(25, abs=10)
    for value, label in ((features.train, features.train_label), (features.val, features.val_label)):
        value[:, :, :4] += 30 * np.eye(4)[label][:, None]
    assert numbers(dict(Attentive(hyper).run(features, seed=0)))["top1"] == 100


def test_val_is_never_looked_at() -> None:
    features, probe = noise(40), Attentive(Attentive.Hyper(lrs=LRS, steps=3, epochs=1))
    other = features._replace(val=features.val[::-1] * 7, val_label=features.val_label * 0)
    first, second = probe.fit(features, seed=0), probe.fit(other, seed=0)
    assert (first.lr, first.decay) == (second.lr, second.decay)
    assert all(map(torch.equal, first.probe, second.probe))


def test_a_rate_that_diverges_is_not_chosen_and_harms_no_other() -> None:
    features, others = noise(40), {"weight_decays": (0.01,), "steps": 8, "epochs": 1}
    alone = Attentive(Attentive.Hyper(lrs=(0.03,), **others)).fit(features, seed=0)
    beside = Attentive(Attentive.Hyper(lrs=(0.03, 1e300), **others)).fit(features, seed=0)
    assert beside.lr == 0.03
    for weight, expected in zip(beside.probe, alone.probe, strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-12)


def test_a_probe_that_is_nan_leaves_the_gradients_of_others_alone() -> None:
    probes, train = begun(noise(10), Attentive(Attentive.Hyper()), 2)
    batch = train.read(torch.arange(10))
    expected = [slope[1].clone() for slope in gradient(probes, *batch)]
    probes.key[0] = math.nan
    slopes = gradient(probes, *batch)
    assert slopes[0][0].isnan().all()
    for slope, alone in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope[1], alone)


@pytest.mark.parametrize(("dim", "heads"), [(3, 1), (64, 1), (100, 1), (130, 2), (200, 2), (384, 6), (768, 12)])
def test_heads_of_attention_are_as_many_of_64_channels_as_divide_a_feature(dim: int, heads: int) -> None:
    """768 channels have AIM's 12."""
    probes, _ = begun(noise(1, tokens=1, dim=dim), Attentive(Attentive.Hyper()), 1)
    assert probes.query.shape == (1, heads, dim // heads)


class CountedTokens(np.ndarray):  # type: ignore[type-arg]
    """Tokens that record how many samples are taken of them at once."""

    most = 0

    def __getitem__(self, key: Any) -> Any:
        part = np.asarray(super().__getitem__(key))
        CountedTokens.most = max(CountedTokens.most, len(part))
        return part


def test_no_more_samples_are_read_at_once_than_a_batch_or_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limit in ((moments, "VALUES"), (evaluator, "CHECKED")):
        monkeypatch.setattr(module, limit, 8 * 5 * 12)
    features = noise(64)
    mapped = features._replace(train=features.train.view(CountedTokens), val=features.val.view(CountedTokens))
    hyper = Attentive.Hyper(lrs=(0.01,), epochs=1, steps=1, batch=8)
    assert numbers(dict(Attentive(hyper).run(mapped, seed=0))) == numbers(dict(Attentive(hyper).run(features, seed=0)))
    assert CountedTokens.most == 8


def test_one_sample_is_too_few() -> None:
    features = noise(1)
    features = features._replace(train_label=features.train_label * 0)
    with pytest.raises(DataError):
        dict(Attentive(Attentive.Hyper()).run(features, seed=0))
    few = Attentive.lacks(Attentive.Hyper(), 1, 3)
    assert few is not None
    assert "it needs 2 or more, not 1" in few.message


@pytest.mark.parametrize("wrong", [{"lrs": ()}, {"lrs": (0.1, 0.0)}, {"weight_decays": (-1.0,)}])
def test_rates_and_decays_that_are_none_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Attentive.Hyper(**wrong)
