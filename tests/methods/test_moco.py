"""MoCo: what its keys are normalized by, what its queue holds, its loss and both recipes."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss

from selfsup.method import load
from selfsup.optim import build
from selfsup.spec import read
from selfsup.views import Crop


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


@pytest.mark.parametrize("recipe", ["in1k/moco", "in1k/moco_v1", "cifar10/moco"])
def test_biases_and_norms_decay_as_all_weights_do(recipe: str, setting) -> None:
    """Both scripts hand all parameters to torch's SGD in one group, with a decay of 1e-4."""
    method, _ = setting("moco", "cnn")
    groups = build(method, read(recipe).optim).param_groups
    assert {group["weight_decay"] for group in groups} == {1e-4}
    trained = {name for name, weight in method.named_parameters() if weight.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_the_first_version_is_that_of_the_authors_script() -> None:
    """Gray for a fifth, then ColorJitter(0.4, 0.4, 0.4, 0.4) for all, and no blur; a linear head, at 0.07;
    a tenth of the learning rate after 120 and 160 of 200 epochs.
    """
    spec = read("in1k/moco_v1")
    expected = Crop(
        scale=(0.2, 1.0),
        resample="bilinear",
        gray=0.2,
        gray_first=True,
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.4,
    )
    hyper, optim = spec.hyper, spec.optim
    assert load("moco").views(hyper).specs == (expected, expected)
    assert (hyper.head, hyper.temperature, hyper.queue, hyper.momentum) == ("linear", 0.07, 65536, 0.999)
    assert (optim.lr, optim.drops, optim.drop_factor, spec.train.duration.epochs) == (0.03, (0.6, 0.8), 0.1, 200)
