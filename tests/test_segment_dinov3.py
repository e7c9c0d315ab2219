"""Segmentation by a normalized linear layer: training against a plain loop of PyTorch's layers, and its extremes."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from selfsup.errors import DataError
from selfsup.evals.segment_dinov3 import SegmentDINOv3, schedule
from selfsup.evaluator import Features
from selfsup.parts.linear_heads import batches

GRID, SIDE, DIM, CLASSES = 3, 6, 5, 4
TRAIN, VAL = 24, 8


def example(noise: float) -> Features:
    """Return tokens of a class each, which two pixels by two show; some pixels of none."""
    draw = np.random.default_rng(0)
    label = draw.integers(0, CLASSES, (TRAIN + VAL, GRID**2))
    value = draw.normal(size=(CLASSES, DIM))[label] + noise * draw.normal(size=(*label.shape, DIM))
    value = (3 + 2 * value).astype(np.float32)
    maps = label.reshape(-1, GRID, GRID).repeat(2, 1).repeat(2, 2).astype(np.int32)
    maps[:, 0, 0] = -1
    none = np.full(TRAIN + VAL, -1)
    parts = (value[:TRAIN], none[:TRAIN], value[TRAIN:], none[TRAIN:])
    return Features(*parts, CLASSES, train_map=maps[:TRAIN], val_map=maps[TRAIN:])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_training_is_that_of_a_plain_loop(dropout: float) -> None:
    """A batch norm and a convolution over maps, in one graph; masks of channels are drawn after the rows."""
    features = example(0.5)
    assert features.train_map is not None
    head = SegmentDINOv3(SegmentDINOv3.Hyper(epochs=1, steps=60, lr=0.01, dropout=dropout)).fit(features, seed=3)

    draw = torch.Generator().manual_seed(3)
    layer, norm = torch.nn.Conv2d(DIM, CLASSES, 1), torch.nn.BatchNorm2d(DIM)
    torch.nn.init.normal_(layer.weight, std=0.01, generator=draw)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW([*norm.parameters(), *layer.parameters()], lr=0.01, weight_decay=1e-3)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, 60))
    for rows in batches(torch.arange(TRAIN), 16, 60, draw):
        tokens = torch.tensor(features.train[rows.numpy()]).mT.reshape(-1, DIM, GRID, GRID)
        mask = (torch.rand(len(rows), 1, DIM, generator=draw) >= dropout).float().mT[..., None] / (1 - dropout)
        logits = torch.nn.functional.interpolate(layer(norm(tokens) * mask), (SIDE, SIDE), mode="bilinear")
        true = torch.tensor(features.train_map[rows.numpy()]).long()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, true, ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_([*norm.parameters(), *layer.parameters()], 35)
        optimizer.step()
        warm.step()
    torch.testing.assert_close(head[1].weight, layer.weight.flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head[1].bias, layer.bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head[0].weight, norm.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head[0].running_mean, norm.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head[0].running_var, norm.running_var, rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_the_trained_layer() -> None:
    """By scikit-learn, of all pixels that have a class."""
    features, probe = example(0.5), SegmentDINOv3(SegmentDINOv3.Hyper(epochs=1, steps=60, lr=0.01))
    assert features.val_map is not None
    coarse = probe.fit(features, seed=0).eval()(torch.tensor(features.val).flatten(0, 1)).detach()
    coarse = coarse.reshape(VAL, GRID, GRID, CLASSES).movedim(3, 1)
    guess = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear").argmax(1).numpy()
    known = features.val_map >= 0
    scores = dict(probe.run(features, seed=0))
    assert scores["pixels"] == pytest.approx(100 * (guess == features.val_map)[known].mean())
    expected = 100 * jaccard_score(features.val_map[known], guess[known], average="macro")
    assert scores["miou"] == pytest.approx(expected)


def test_the_rate_rises_to_one_and_falls_along_half_a_cosine() -> None:
    rates = [schedule(step, 800) for step in range(800)]
    assert rates[:30] == pytest.approx([(step + 1) / 30 for step in range(30)])
    assert rates[30] == 1
    assert rates[415] == pytest.approx(0.5)
    assert rates[799] == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 769 / 770))


def test_classes_that_tokens_tell_are_found_and_noise_tells_none() -> None:
    hyper = SegmentDINOv3.Hyper(epochs=1, steps=200, lr=0.03, dropout=0)
    clear, noise = example(0.0), example(0.0)
    noise = noise._replace(train=np.random.default_rng(1).normal(size=noise.train.shape).astype(np.float32))
    scores = [dict(SegmentDINOv3(hyper).run(one, seed=0)) for one in (clear, noise)]
    assert float(scores[0]["pixels"]) > 90  # pixels between tokens of two classes are of either
    assert float(scores[1]["pixels"]) < 45


def test_one_that_diverges_is_an_error() -> None:
    with pytest.raises(DataError, match="the linear layer diverged; set a smaller lr"):
        SegmentDINOv3(SegmentDINOv3.Hyper(epochs=1, steps=20, lr=1e30)).fit(example(0.5), seed=0)
