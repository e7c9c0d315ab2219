"""MoCo v3 against the paper's algorithm in loops, and teachers moved by hand."""

import copy
import math

import pytest
import torch
from torch import nn


def contrast(query: torch.Tensor, key: torch.Tensor, temperature: float) -> torch.Tensor:
    """2 tau times the cross-entropy of algorithm 1, sample by sample, in float64."""
    query, key, losses = query.double(), key.double(), []
    for number, q in enumerate(query):
        scores = torch.stack([q @ k / (q.norm() * k.norm()) for k in key]) / temperature
        losses.append(scores.exp().sum().log() - scores[number])
    return 2 * temperature * torch.stack(losses).mean()


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_loss_is_algorithm_1_in_both_directions(kind: str, setting, moved) -> None:
    method, batch = setting("mocov3", kind)
    moved(method.key, method.key_projector)
    queries = [method.predictor(method.projector(method.backbone.pooled(view.value))) for view in batch.views]
    keys = [method.key_projector(method.key.pooled(view.value)).detach() for view in batch.views]
    expected = contrast(queries[0], keys[1], 0.2) + contrast(queries[1], keys[0], 0.2)
    torch.testing.assert_close(method(batch).loss.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "projector", "last"), [("vit", 3, nn.BatchNorm1d), ("cnn", 2, nn.Linear)])
def test_heads_are_those_of_the_kind(kind: str, projector: int, last: type, setting) -> None:
    """Section 4.2: all layers batch-normalized, at last without scale and shift; a ResNet's predictor ends bare."""
    method, _ = setting("mocov3", kind)
    linears = [layer for layer in method.projector if isinstance(layer, nn.Linear)]
    assert len(linears) == projector
    assert all(layer.bias is None for layer in linears)
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert not method.projector[-1].affine
    assert isinstance(method.predictor[-1], last)


def test_patches_stay_as_they_begin_unless_told(setting) -> None:
    frozen, _ = setting("mocov3")
    free, _ = setting("mocov3", frozen_patches=False)
    patches = [name for name, _ in frozen.backbone.named_parameters() if "patch_embed" in name]
    assert patches
    for name in patches:
        assert not frozen.backbone.get_parameter(name).requires_grad
        assert free.backbone.get_parameter(name).requires_grad


def test_keys_come_from_the_past_by_a_cosine_to_one(setting) -> None:
    method, batch = setting("mocov3", "cnn", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    expected = copy.deepcopy(dict(method.key_projector.named_parameters()))
    trunk = method.key.trunk.conv1.weight.clone()
    for step in range(3):
        optimizer.zero_grad()
        method(batch).loss.backward()
        optimizer.step()
        method.after_step(step / 3, {})
        m = 1 - (1 - 0.9) * (math.cos(math.pi * step / 3) + 1) / 2
        online = dict(method.projector.named_parameters())
        expected = {name: m * weight + (1 - m) * online[name].detach() for name, weight in expected.items()}
        trunk = m * trunk + (1 - m) * method.backbone.trunk.conv1.weight.detach()
    torch.testing.assert_close(dict(method.key_projector.named_parameters()), expected)
    torch.testing.assert_close(method.key.trunk.conv1.weight, trunk)
