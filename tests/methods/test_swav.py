"""SwAV against lightly's loss, with a queue kept by hand."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from torch import Tensor

from selfsup.method import Method, load
from selfsup.parts.tokens import Tokens, joined

SwAV = load("swav")


def scored(method: Method, views: list[Tokens]) -> tuple[list[Tensor], list[Tensor]]:
    """Return unit embeddings of each view and their cosines with the prototypes; crops of one size side by side."""
    large = method.backbone.pooled(joined(views[:2]))
    small = method.backbone.pooled(joined(views[2:]))
    z = F.normalize(method.projector(torch.cat([large, small])), dim=1).chunk(len(views))
    return list(z), [each @ method.prototypes.T for each in z]


def test_every_step_is_lightlys_on_queues_kept_by_hand(setting) -> None:
    method, _ = setting("swav", temperature=0.2, epsilon=0.1, iterations=4, queue_begins=0.35)
    optimizer, theirs = torch.optim.SGD(method.parameters(), lr=0.1), SwaVLoss(0.2, 4, 0.1)
    kept: list[list[Tensor]] = [[], []]
    for step in range(6):  # queues of 16 are full after 2 steps of 8, and count from the step at 0.4 on
        _, batch = setting("swav", seed=step)
        z, scores = scored(method, [view.value for view in batch.views])
        queues = [torch.cat(each[-2:]) @ method.prototypes.T for each in kept] if step >= 4 else None
        expected = theirs(scores[:2], scores[2:], queues).squeeze()
        out = method(batch)
        torch.testing.assert_close(out.loss, expected)
        weights = [weight for weight in method.parameters() if weight.requires_grad]
        grads = torch.autograd.grad(expected, weights)
        torch.testing.assert_close(torch.autograd.grad(out.loss, weights), grads, rtol=1e-3, atol=1e-6)
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad
        optimizer.step()
        method.after_step(step / 10, out.aux)
        for number in range(2):
            kept[number].append(z[number].detach())


@pytest.mark.parametrize(("begins", "expected"), [(0.0, [0, 1, 1, 1]), (0.25, [0, 0, 1, 1])])
def test_a_queue_counts_once_it_is_full_and_its_time_has_come(setting, begins: float, expected: list[int]) -> None:
    method, batch = setting("swav", queue=16, queue_begins=begins)
    seen = []
    for step in range(4):
        method.after_step(step / 10, method(batch).aux)
        seen.append(int(method.queued))
    assert seen == expected


def test_without_a_queue_nothing_is_kept(setting) -> None:
    method, batch = setting("swav", queue=0)
    out = method(batch)
    _, scores = scored(method, [view.value for view in batch.views])
    torch.testing.assert_close(out.loss, SwaVLoss(0.1, 3, 0.05)(scores[:2], scores[2:]).squeeze())
    assert out.aux == {}


def test_prototypes_stay_unit_vectors_and_rest_at_first(setting) -> None:
    method, batch = setting("swav", freeze=0.3)
    before = method.prototypes.detach().clone()
    method.prototypes.data.mul_(3.0)
    method.after_step(0.0, method(batch).aux)
    torch.testing.assert_close(method.prototypes.detach(), before)
    begins = {name: method.param_options(name, weight).frozen_until for name, weight in method.named_parameters()}
    assert begins.pop("prototypes") == 0.3
    assert set(begins.values()) == {0.0}


def test_the_views_are_the_papers() -> None:
    crops = SwAV.views(SwAV.Hyper()).specs
    assert [(crop.size, crop.scale) for crop in crops] == [(None, (0.14, 1.0))] * 2 + [(96, (0.05, 0.14))] * 6
    assert all((crop.jitter, crop.hue, crop.gray, crop.blur) == (0.8, 0.2, 0.2, 0.5) for crop in crops)
