"""DenseCL: lightly finds the correspondence and works out both losses, step after step."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.models.utils import select_most_similar


def against(queue: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """lightly's loss with this queue as its memory."""
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=tuple(queue.shape))
    theirs.memory_bank.bank = queue.clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    return theirs(query, key.detach())


def at_places(head: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """(N, P, C) -> (N, P, D), place by place"""
    return torch.stack([head(place) for place in features.unbind(1)], dim=1)


def test_every_step_is_lightlys_on_queues_of_its_own(setting, moved) -> None:
    method, batch = setting("densecl", dense=0.3, split=1, queue=12)
    moved(method.key, method.key_projector, method.key_dense_projector)
    queue, dense_queue = method.queue.rows.clone(), method.dense_queue.rows.clone()
    for step in range(3):  # 24 keys, round the queues and on
        features, others = (
            encoder.spatial(view.value).flatten(2).mT
            for encoder, view in zip((method.backbone, method.key), batch.views, strict=True)
        )
        query, key = method.projector(features.mean(1)), method.key_projector(others.mean(1))
        dense = at_places(method.dense_projector, features)
        dense_key = at_places(method.key_dense_projector, others)
        matched = select_most_similar(F.normalize(features, dim=2), F.normalize(others, dim=2), dense_key)
        whole = against(queue, query, key)
        local = against(dense_queue, dense.flatten(0, 1), matched.flatten(0, 1))
        out = method(batch)
        torch.testing.assert_close(out.loss, 0.7 * whole + 0.3 * local)
        method.after_step(0.0, out.aux)
        for number in range(8):  # the oldest of 12 give way
            queue[(8 * step + number) % 12] = F.normalize(key[number].detach(), dim=0)
            dense_queue[(8 * step + number) % 12] = F.normalize(dense_key[number].detach().mean(0), dim=0)
        torch.testing.assert_close(method.queue.rows, queue)
        torch.testing.assert_close(method.dense_queue.rows, dense_queue)


def test_each_key_is_normalized_by_its_group(setting) -> None:
    method, batch = setting("densecl", split=2)
    keys = method(batch).aux["keys"]
    for group in (slice(0, None, 2), slice(1, None, 2)):
        alone = method.key_projector(method.key.pooled(batch.views[1].value[group]))
        torch.testing.assert_close(keys[group], F.normalize(alone, dim=1))


def test_the_dense_loss_begins_when_told(setting) -> None:
    method, batch = setting("densecl", dense=0.3, begins=0.25)  # of ten steps: from the fourth on
    weights = []
    for step in range(4):
        weights.append(method.weight.item())
        out = method(batch)
        expected = (1 - weights[-1]) * out.log["global_loss"] + weights[-1] * out.log["dense_loss"]
        torch.testing.assert_close(out.loss, expected)
        method.after_step(step / 10, out.aux)
    assert weights == pytest.approx([0, 0, 0, 0.3])


def test_every_part_of_the_key_encoder_follows(setting) -> None:
    method, batch = setting("densecl", momentum=0.75)
    pairs = [
        (method.key.trunk.conv1, method.backbone.trunk.conv1),
        (method.key_projector[0], method.projector[0]),
        (method.key_dense_projector[0], method.dense_projector[0]),
    ]
    before = [key.weight.clone() for key, _ in pairs]
    with torch.no_grad():
        for _, online in pairs:
            online.weight.add_(1.0)
    method.after_step(0.0, method(batch).aux)
    for (key, _), weight in zip(pairs, before, strict=True):
        torch.testing.assert_close(key.weight, weight + 0.25)
