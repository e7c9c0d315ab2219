import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import labels
from selfsup.parts.labels import accuracy, cross_entropy

LABEL = torch.tensor([2, -1, 0, 1, -1, 2, -1])


def scores() -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_labelled_samples_alone_count() -> None:
    logits = scores()
    logarithms = [logits[i, LABEL[i]] - logits[i].exp().sum().log() for i in range(7) if LABEL[i] >= 0]
    expected = -sum(logarithms) / 4
    loss = cross_entropy(logits, LABEL)
    torch.testing.assert_close(loss, expected)
    [ours], [theirs] = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)
    assert not ours[LABEL < 0].any()


def test_smoothing_is_a_truth_that_all_classes_share() -> None:
    logits, labelled = scores(), LABEL >= 0
    truth = 0.7 * F.one_hot(LABEL[labelled], 3) + 0.3 / 3
    expected = -(truth * logits[labelled].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(logits, LABEL, smoothing=0.3), expected)


def test_accuracy_is_of_labelled_samples() -> None:
    logits = F.one_hot(torch.tensor([2, 0, 1, 1, 0, 2, 0]), 3).float()
    assert accuracy(logits, LABEL).item() == pytest.approx(3 / 4)


def test_a_batch_without_labels_teaches_nothing() -> None:
    logits = scores()
    loss = cross_entropy(logits, torch.full((7,), -1))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_processes_with_unequally_many_labels_have_the_mean_of_the_whole(monkeypatch) -> None:
    logits, label = scores()[:6], LABEL[:6]
    label = torch.where(torch.arange(6) < 3, label, -1)  # none in the second process
    whole = cross_entropy(logits, label)
    monkeypatch.setattr(labels.dist, "world_size", lambda: 2)
    monkeypatch.setattr(labels.dist, "mean", lambda _: (label >= 0).sum() / 2)  # over both
    shares = [cross_entropy(logits[rows], label[rows]) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(shares) / 2, whole)
    assert shares[1].item() == 0
    assert math.isfinite(whole.item())
    assert whole > 0
