"""V-JEPA's attentive probe against transformers' port of its pooler, trained by torch.optim.AdamW."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

from selfsup.errors import DataError
from selfsup.evals.attentive_vjepa import AttentiveVJEPA
from selfsup.evaluator import Features, numbers
from selfsup.parts.attentive_classifier import AttentiveClassifier

DIM, CLASSES = 12, 3


def noise(number: int, seed: int = 0) -> Features:
    """Return five tokens a sample and labels that have nothing in common, in float64."""
    draw = np.random.default_rng(seed)
    value, label = draw.normal(size=(2 * number, 5, DIM)), draw.integers(0, CLASSES, 2 * number)
    return Features(value[:number], label[:number], value[number:], label[number:], CLASSES)


def ported(probe: AttentiveClassifier) -> nn.Sequential:
    """Return transformers' pooler and a linear layer, with the weights of a probe."""
    config = VJEPA2Config(hidden_size=DIM, num_attention_heads=probe.heads, num_pooler_layers=len(probe.blocks))
    config._attn_implementation = "sdpa"  # the eager one has a softmax in float32
    pooler, head = VJEPA2AttentivePooler(config), nn.Linear(DIM, CLASSES)
    cross = pooler.cross_attention_layer
    pairs = [
        (cross.layer_norm1, probe.norm),
        (cross.cross_attn.q_proj, probe.to_query),
        (cross.cross_attn.k_proj, probe.to_keys),
        (cross.cross_attn.v_proj, probe.to_values),
        (cross.layer_norm2, probe.mlp[0]),
        (cross.mlp.fc1, probe.mlp[1].fc1),
        (cross.mlp.fc2, probe.mlp[1].fc2),
        (head, probe.head),
    ]
    for theirs, own in zip(pooler.self_attention_layers, probe.blocks, strict=True):
        pairs += [(theirs.layer_norm1, own.norm1), (theirs.self_attn.out_proj, own.attn.proj)]
        pairs += [(theirs.layer_norm2, own.norm2), (theirs.mlp.fc1, own.mlp.fc1), (theirs.mlp.fc2, own.mlp.fc2)]
    pooler.double(), head.double()
    with torch.no_grad():
        pooler.query_tokens.copy_(probe.query)
        for theirs, own in pairs:
            theirs.weight.copy_(own.weight), theirs.bias.copy_(own.bias)
        for theirs, own in zip(pooler.self_attention_layers, probe.blocks, strict=True):
            parts = zip(
                ("q_proj", "k_proj", "v_proj"), own.attn.qkv.weight.chunk(3), own.attn.qkv.bias.chunk(3), strict=True
            )
            for name, weight, bias in parts:
                layer = getattr(theirs.self_attn, name)
                layer.weight.copy_(weight), layer.bias.copy_(bias)
    return nn.Sequential(pooler, head)


@pytest.mark.parametrize("depth", [1, 4])
def test_ten_steps_are_those_of_transformers_pooler_under_torchs_adamw(depth: int) -> None:
    """40 samples in two batches an epoch; nothing is chosen, and so all train. Biases and norms do not decay."""
    features = noise(40)
    evaluator = AttentiveVJEPA(
        AttentiveVJEPA.Hyper(depth=depth, lrs=(0.01,), weight_decays=(0.1,), epochs=5, steps=1, batch=20, head_width=4)
    )
    draw = torch.Generator().manual_seed(3)
    order = torch.randperm(40, generator=draw)
    [start] = evaluator.begin(features, 1, draw, "cpu")
    assert start.heads == 3
    plain = ported(start)
    decayed = [weight for weight in plain.parameters() if weight.ndim > 1]
    others = [weight for weight in plain.parameters() if weight.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    value, label = torch.as_tensor(features.train), torch.as_tensor(features.train_label)
    epochs = [order[torch.randperm(40, generator=draw)] for _ in range(5)]
    for step, rows in enumerate(part for epoch in epochs for part in epoch.split(20)):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * step / 10)) / 2
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(value[rows]), label[rows]).backward()
        optimizer.step()
    probe, choice = evaluator.fit(features, seed=3)
    assert choice == (0.01, 0.1)
    val = torch.as_tensor(features.val)
    with torch.no_grad():
        torch.testing.assert_close(probe(val), plain(val), rtol=1e-9, atol=1e-10)


def logits(probe: AttentiveClassifier, value: np.ndarray) -> Tensor:
    with torch.no_grad():
        return probe(torch.as_tensor(value))


def test_the_probe_chosen_is_the_best_on_a_tenth_and_as_if_alone() -> None:
    features = noise(100)
    hyper = {"epochs": 2, "steps": 1, "batch": 30, "head_width": 4}
    probe, (lr, decay) = AttentiveVJEPA(AttentiveVJEPA.Hyper(lrs=(1e-4, 0.01), **hyper)).fit(features, seed=1)
    tenth = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:10]
    losses = {}
    for rate in (1e-4, 0.01):
        twice = AttentiveVJEPA.Hyper(lrs=(rate, 1e-9), **hyper)
        evaluator, draw = AttentiveVJEPA(twice), torch.Generator().manual_seed(1)
        rest = torch.randperm(100, generator=draw)[10:]
        probes = evaluator.begin(features, 1, draw, "cpu")
        label = torch.as_tensor(features.train_label)
        evaluator.descend(probes, [(rate, 1e-3)], features, label, rest, draw)
        losses[rate] = float(
            nn.functional.cross_entropy(logits(probes[0], features.train[tenth.numpy()]), label[tenth])
        )
        if rate == lr:
            torch.testing.assert_close(logits(probes[0], features.val), logits(probe, features.val))
    assert lr == min(losses, key=losses.__getitem__)
    assert decay == 1e-3


def test_tokens_that_differ_are_told_apart_and_noise_is_guessed() -> None:
    features = noise(150)
    marked = (
        features.train + 6 * np.eye(CLASSES, DIM)[features.train_label][:, None],
        features.val + 6 * np.eye(CLASSES, DIM)[features.val_label][:, None],
    )
    evaluator = AttentiveVJEPA(AttentiveVJEPA.Hyper(steps=60, epochs=1))
    seen = numbers(dict(evaluator.run(features._replace(train=marked[0], val=marked[1]), seed=0)))
    assert seen == {"top1": 100.0}
    assert 14 <= numbers(dict(evaluator.run(features, seed=0)))["top1"] <= 53  # a third, five deviations


def test_what_is_chosen_is_a_metric_and_needs_two_samples() -> None:
    one, several = AttentiveVJEPA.Hyper(), AttentiveVJEPA.Hyper(weight_decays=(0.01, 0.1))
    assert list(AttentiveVJEPA.yields(one)) == ["top1"]
    assert list(AttentiveVJEPA.yields(several)) == ["top1", "lr", "weight_decay"]
    assert AttentiveVJEPA.lacks(one, 1, 2) is None
    assert AttentiveVJEPA.lacks(several, 1, 2)


def test_a_probe_that_diverges_is_no_number() -> None:
    with pytest.raises(DataError, match="the attentive probe diverged; set a smaller lr"):
        dict(AttentiveVJEPA(AttentiveVJEPA.Hyper(lrs=(1e300,), steps=5, epochs=1)).run(noise(20), seed=0))


@pytest.mark.parametrize("wrong", [{"lrs": ()}, {"lrs": (0.0,)}, {"weight_decays": (-1.0,)}, {"depth": 0}])
def test_settings_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AttentiveVJEPA.Hyper.model_validate(wrong)
