"""MoCo: what its keys are normalized by, what its queue holds, and its loss against lightly's, step after step."""

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss


def test_the_loss_of_every_step_is_lightlys_on_a_queue_of_its_own(setting) -> None:
    method, batch = setting("moco", queue=24)
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(24, 128))
    theirs.memory_bank.bank = method.queue.rows.clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    for _ in range(4):  # 32 keys, round the queue and on
        query = method.projector(method.backbone.pooled(batch.views[0].value))
        out = method(batch)
        torch.testing.assert_close(out.loss, theirs(query, out.aux["keys"]))
        method.after_step(0.0, out.aux)


def test_each_key_is_normalized_by_its_group(setting, moved) -> None:
    method, batch = setting("moco", "cnn", split=2)
    moved(method.key)
    keys = method(batch).aux["keys"]
    for group in (slice(0, None, 2), slice(1, None, 2)):
        alone = method.key_projector(method.key.pooled(batch.views[1].value[group]))
        torch.testing.assert_close(keys[group], F.normalize(alone, dim=1))


def test_only_queries_are_learned_from(setting) -> None:
    method, batch = setting("moco")
    batch.views[1].value.value.requires_grad_()
    method(batch).loss.backward()
    assert batch.views[1].value.value.grad is None
    assert all(weight.grad is None for weight in method.key.parameters())
