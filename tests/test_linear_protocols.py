"""The linear probes of DINOv2, DINO and MAE against loops of nn.Linear under torch's SGD and timm's LARS."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from timm.optim.lars import Lars
from torch import Tensor, nn

from selfsup import evaluator
from selfsup.errors import DataError
from selfsup.evals.linear_dino import LinearDINO
from selfsup.evals.linear_dinov2 import LinearDINOv2
from selfsup.evals.linear_mae import LinearMAE
from selfsup.evaluator import Features, numbers
from selfsup.feature_choice import FeatureChoice
from selfsup.parts import linear_heads, moments

NAMES = "linear_dinov2", "linear_dino", "linear_mae"
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def digits(parts: int = 1) -> Features:
    """Return 500 digits to learn from and 797 others, in float64; each of several parts is the digits turned."""
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order] / 16, label[order].astype(np.int64)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(parts, 64, 64)))[0]
    value = np.concatenate([value @ part for part in turn], 1)
    return Features(value[:500], label[:500], value[1000:], label[1000:], 10, parts=parts)


def begun(inputs: int, draw: torch.Generator) -> nn.Linear:
    """Return a layer of small random weights, float32 numbers in float64, without bias."""
    layer = nn.Linear(inputs, 10, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.01 * torch.randn(inputs, 10, generator=draw).T)
        layer.bias.zero_()
    return layer


def trained(
    layer: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    rate: Callable[[int], float],
    steps: list[tuple[Any, Any]],
) -> None:
    for step, (value, label) in enumerate(steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
        nn.functional.cross_entropy(layer(value), label).backward()
        for optimizer in optimizers:
            optimizer.step()
    layer.requires_grad_(False)


def shuffled(value: Tensor, label: Tensor, rows: Tensor, epochs: int, parts: int, draw: torch.Generator) -> list[Any]:
    """Return the batches of so many epochs, each in so many parts."""
    orders = [rows[torch.randperm(len(rows), generator=draw)] for _ in range(epochs)]
    return [(value[part], label[part]) for order in orders for part in order.tensor_split(parts)]


def test_dinov2s_heads_are_a_loop_over_rates_blocks_and_poolings() -> None:
    """50 of 500 samples choose, 450 train for 3 epochs of 2 steps. Columns: four class tokens, then a mean."""
    features, lrs, batch = digits(parts=5), (0.01, 0.1, 1.0), 256
    probe = LinearDINOv2(LinearDINOv2.Hyper(lrs=lrs, epochs=3, steps=1, batch=batch))
    draw = torch.Generator().manual_seed(7)
    tenth, rest = torch.randperm(500, generator=draw).split([50, 450])
    value, label = torch.as_tensor(features.train), torch.as_tensor(features.train_label)
    columns = {(1, 0): (192, 256), (1, 1): (192, 320), (4, 0): (0, 256), (4, 1): (0, 320)}
    begins = {key: begun(stop - start, draw).state_dict() for key, (start, stop) in columns.items()}
    steps = shuffled(value, label, rest, 3, 2, draw)
    losses, layers = {}, {}
    for (key, (start, stop)), lr in product(columns.items(), lrs):
        layer = nn.Linear(stop - start, 10, dtype=torch.float64)
        layer.load_state_dict(begins[key])
        sgd = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, weight_decay=0)
        cut = [(part[:, start:stop], own) for part, own in steps]
        trained(layer, [sgd], lambda step, lr=lr: lr * (1 + math.cos(math.pi * step / 6)) / 2, cut)
        losses[key, lr] = nn.functional.cross_entropy(layer(value[tenth, start:stop]), label[tenth]).item()
        layers[key, lr] = layer
    (blocks, mean), lr = best = min(losses, key=losses.__getitem__)
    fit = probe.fit(features, seed=7)
    assert (fit.input, fit.lr, (fit.columns.start, fit.columns.stop)) == ((blocks, mean), lr, columns[blocks, mean])
    torch.testing.assert_close(fit.head.weight[:, 0].T, layers[best].weight, **EXACT)
    torch.testing.assert_close(fit.head.bias[0], layers[best].bias, **EXACT)
    guess = layers[best](torch.as_tensor(features.val[:, fit.columns])).argmax(1).numpy()
    scores = numbers(dict(probe.run(features, seed=7)))
    top1 = 100 * (guess == features.val_label).mean()
    assert scores == {"top1": pytest.approx(top1), "lr": lr, "blocks": blocks, "cls_mean": mean}


def test_dinos_head_is_torchs_sgd() -> None:
    features = digits()
    fitted = LinearDINO(LinearDINO.Hyper(lr=0.05, epochs=3, steps=1, batch=256)).fit(features, seed=3)
    draw = torch.Generator().manual_seed(3)
    layer = begun(64, draw)
    value, label = torch.as_tensor(features.train), torch.as_tensor(features.train_label)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    steps = shuffled(value, label, torch.arange(500), 3, 2, draw)
    trained(layer, [sgd], lambda step: 0.05 * (1 + math.cos(math.pi * step / 6)) / 2, steps)
    torch.testing.assert_close(fitted.weight[:, 0].T, layer.weight, **EXACT)
    torch.testing.assert_close(fitted.bias[0], layer.bias, **EXACT)


def test_maes_head_is_timms_lars_behind_torchs_batch_norm() -> None:
    """LARS adapts the weight alone. 12 epochs of 2 steps, 4 of warm-up; the peak is twice the rate at batch 512."""
    features = digits()
    probe = LinearMAE(LinearMAE.Hyper(lr=2.0, epochs=12, warmup=4, steps=1, batch=256))
    draw = torch.Generator().manual_seed(3)
    norm = nn.BatchNorm1d(64, affine=False, eps=1e-6, dtype=torch.float64)
    layer = begun(64, draw)
    value, label = torch.as_tensor(features.train), torch.as_tensor(features.train_label)
    lars = Lars([layer.weight], lr=1, momentum=0.9, trust_coeff=0.001, eps=0, always_adapt=True)
    sgd = torch.optim.SGD([layer.bias], lr=1, momentum=0.9)
    rates = [*np.arange(8) / 8, *(1 + np.cos(np.pi * np.arange(16) / 16)) / 2]
    steps = shuffled(value, label, torch.arange(500), 12, 2, draw)
    trained(nn.Sequential(norm, layer), [lars, sgd], lambda step: 2.0 * float(rates[step]), steps)
    fitted = probe.fit(features, seed=3)
    torch.testing.assert_close(fitted.head.weight[:, 0].T, layer.weight, **EXACT)
    torch.testing.assert_close(fitted.head.bias[0], layer.bias, **EXACT)
    guess = layer(norm.eval()(torch.as_tensor(features.val))).argmax(1).numpy()
    scores = numbers(dict(probe.run(features, seed=3)))
    assert scores["top1"] == pytest.approx(100 * (guess == features.val_label).mean())


@pytest.mark.parametrize("name", [*NAMES, "linear", "logistic", "knn"])
def test_separable_classes_are_told_apart_and_noise_is_guessed(name: str) -> None:
    kind, draw = evaluator.load(name), np.random.default_rng(0)
    parts = kind.reads_of(kind.Hyper()).parts
    label = np.arange(600) % 3
    value = draw.normal(size=(600, 8 * parts)).astype(np.float32)
    for shift, low, high in ((0.0, 20, 47), (12.0, 100, 100)):  # 300 guesses of a third each: within five deviations
        moved = value + shift * np.eye(3, 8 * parts, dtype=np.float32)[label]
        features = Features(moved[:300], label[:300], moved[300:], label[300:], 3, parts=parts)
        steps = {"steps": 200} if name in NAMES else {}
        hyper = kind.Hyper.model_validate(steps | ({"lr": 0.1} if name == "linear_dino" else {}))
        assert low <= numbers(dict(kind(hyper).run(features, seed=0)))["top1"] <= high


def test_val_is_never_looked_at() -> None:
    features = digits(parts=5)
    shuffled_val = features._replace(val=features.val[::-1] * 7, val_label=features.val_label * 0)
    probe = LinearDINOv2(LinearDINOv2.Hyper(steps=1, epochs=2))
    first, second = probe.fit(features, seed=0), probe.fit(shuffled_val, seed=0)
    assert torch.equal(first.head.weight, second.head.weight)
    assert first[1:] == second[1:]


def test_dinov2_reads_all_that_its_heads_do_and_raw_samples_are_one_input() -> None:
    assert LinearDINOv2.reads_of(LinearDINOv2.Hyper()) == FeatureChoice("cls_mean", 4)
    assert LinearDINOv2.reads_of(LinearDINOv2.Hyper(blocks=(1, 2), features=("cls",))) == FeatureChoice("cls", 2)
    assert LinearDINO.reads_of(LinearDINO.Hyper()) == FeatureChoice("cls", 4)
    assert LinearMAE.reads_of(LinearMAE.Hyper()) == FeatureChoice()
    probe = LinearDINOv2(LinearDINOv2.Hyper(steps=20))
    assert list(probe.inputs(digits())) == [(1, False)]
    assert numbers(dict(probe.run(digits(), seed=0)))["cls_mean"] == 0


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_head_that_diverges_is_no_number_and_harms_no_other() -> None:
    features = digits()._replace(train=digits().train.astype(np.float32), val=digits().val.astype(np.float32))
    with pytest.raises(DataError, match="the linear probe diverged; set a smaller lr"):
        dict(LinearDINO(LinearDINO.Hyper(lr=1e38, steps=10, epochs=1)).run(features, seed=0))
    beside = LinearDINOv2(LinearDINOv2.Hyper(lrs=(0.1, 1e38), steps=10)).fit(features, seed=0)
    assert beside.lr == 0.1


@pytest.mark.parametrize("wrong", [{"lrs": ()}, {"lrs": (0.0,)}, {"blocks": (0,)}, {"features": ("mean",)}])
def test_grids_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LinearDINOv2.Hyper.model_validate(wrong)


@pytest.mark.parametrize("kind", [LinearDINOv2, LinearMAE])
def test_one_sample_is_too_few(kind: type[evaluator.Evaluator]) -> None:
    assert kind.lacks(kind.Hyper(), 1, 2)
    assert kind.lacks(kind.Hyper(), 2, 2) is None


@pytest.mark.parametrize("name", ["linear", "linear_dinov2"])
def test_no_more_training_samples_are_read_at_once_than_a_batch_or_a_part(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part is of seven samples, of ten classes and two rates; the tenth that chooses has fifty."""
    monkeypatch.setattr(linear_heads, "LOGITS", 7 * 2 * 10)
    monkeypatch.setattr(moments, "VALUES", 7 * 64)
    sizes = []

    class Counted(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            sizes.extend([len(key)] if isinstance(key, np.ndarray) else [])
            return np.asarray(super().__getitem__(key))

    features, kind = digits(5 if name == "linear_dinov2" else 1), evaluator.load(name)
    protocol = kind(kind.Hyper.model_validate({"lrs": (0.01, 0.1), "epochs": 1, "batch": 7}))
    dict(protocol.run(features._replace(train=features.train.view(Counted)), seed=0))
    assert max(sizes) == 7


@pytest.mark.parametrize("name", ["linear", *NAMES, "attentive", "attentive_vjepa"])
def test_epochs_are_on_augmented_views_in_turn_and_a_held_out_sample_is_in_none(name: str) -> None:
    """Three epochs, one on each of three views: of nine tenths of the samples, or of all where nothing is chosen."""
    kind, seen = evaluator.load(name), set[tuple[int, int]]()

    class Recorded(np.ndarray):  # type: ignore[type-arg]
        number = 0

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, np.ndarray):
                seen.update((self.number, row) for row in key.tolist())
            return np.asarray(super().__getitem__(key))

    features = digits()
    if kind.reads == "tokens":
        features = features._replace(train=features.train.reshape(-1, 8, 8), val=features.val.reshape(-1, 8, 8))
    tables = [features.train.view(Recorded) for _ in range(3)]
    for number, table in enumerate(tables):
        table.number = number
    features = features._replace(views=tables)
    hyper = kind.Hyper.model_validate({"epochs": 3, "batch": 500} | ({} if name == "linear" else {"steps": 1}))
    dict(kind(hyper).run(features, seed=0))
    rows = [{row for number, row in seen if number == table} for table in range(3)]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == (500 if name in ("linear_dino", "linear_mae", "attentive_vjepa") else 450)
