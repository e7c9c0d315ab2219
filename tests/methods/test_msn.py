"""MSN against lightly's loss; what its anchors and targets see; the momentum of its teacher."""

import pytest
import torch
from lightly.loss import MSNLoss

from selfsup.optim import param_groups


@pytest.mark.parametrize("rounds", [0, 3])
def test_the_loss_is_lightlys(rounds: int, setting, moved) -> None:
    method, batch = setting("msn", iterations=rounds)
    moved(method.teacher, method.teacher_projector, by=0.02)
    target, anchor, *small = batch.views
    large = method.projector(method.backbone(anchor.value, anchor.mask.keep)[:, 0])
    anchors = torch.cat([large, method.projector(torch.cat([method.backbone(view.value)[:, 0] for view in small]))])
    targets = method.teacher_projector(method.teacher(target.value)[:, 0])
    theirs = MSNLoss(temperature=0.1, sinkhorn_iterations=rounds, regularization_weight=1.0)
    weight = method.prototypes.weight
    expected = theirs(anchors, targets, weight, target_sharpen_temperature=0.25)  # of 0.1: 0.025
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected)
    weights = [weight, *method.projector.parameters()]
    ours, grads = torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    torch.testing.assert_close(ours, grads, rtol=1e-3, atol=1e-5)


def test_anchors_miss_patches_and_targets_do_not(setting) -> None:
    method, batch = setting("msn", mask_ratio=0.5)
    target, anchor, *small = (view.value.value.requires_grad_() for view in batch.views)
    loss = method(batch).loss
    loss.backward()
    assert target.grad is None
    removed = batch.views[1].mask.removed
    assert not anchor.grad[removed].any()
    assert anchor.grad[~removed].any(dim=1).all()
    assert all(view.grad.any(dim=2).all() for view in small)
    for token in range(16):
        target.detach()[:, token].neg_()
        assert not method(batch).loss.equal(loss)
        target.detach()[:, token].neg_()


def test_prototypes_do_not_decay(setting) -> None:
    method, _ = setting("msn")
    decayed = [weight for group in param_groups(method, 0.1) if group["weight_decay"] for weight in group["params"]]
    assert any(weight is method.projector[0].weight for weight in decayed)
    assert not any(weight is method.prototypes.weight for weight in decayed)


def test_the_teacher_follows_ever_more_slowly(setting) -> None:
    """A straight line that would end at five quarters of training."""
    method, _ = setting("msn", momentum=0.9)
    expected = 0.0
    with torch.no_grad():
        for weight in method.teacher.parameters():
            weight.zero_()
        for weight in method.backbone.parameters():
            weight.fill_(1.0)
    for step in range(4):
        method.after_step(step / 4, {})
        momentum = 0.9 + 0.1 * step / 5
        expected = momentum * expected + 1 - momentum
    assert all(weight.flatten()[0].item() == pytest.approx(expected) for weight in method.teacher.parameters())
    assert method.encoder("image") is method.teacher
