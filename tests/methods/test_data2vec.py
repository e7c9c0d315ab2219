"""data2vec: its targets in NumPy, its loss from these, what is masked, and the teacher."""

import numpy as np
import pytest
import torch

from selfsup.masks import BlockMask
from selfsup.method import load


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(("average", "beta"), [(1, 0.5), (2, 2.0)])
def test_the_loss_is_worked_out_in_numpy(average: int, beta: float, setting, moved) -> None:
    method, batch = setting("data2vec", average=average, beta=beta)
    moved(method.teacher, method.head)
    [view] = batch.views
    outputs: list[np.ndarray] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: outputs.append(out.detach().double().numpy()))
        for block in method.teacher.trunk.blocks
    ]
    method.teacher(view.value)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 2
    targets = normalized(sum(normalized(out[:, 1:]) for out in outputs[-average:]) / average)
    covered = method.backbone(view.value, cover=(view.mask.where, method.mask_token))
    predicted = method.head(covered[:, 1:])
    losses = []
    for sample, where in enumerate(view.mask.where):
        apart = (predicted[sample][where] - torch.tensor(targets[sample]).float()[where]).abs()
        losses.append(torch.where(apart < beta, apart.square() / (2 * beta), apart - beta / 2).mean())
    expected, loss = torch.stack(losses).mean(), method(batch).loss
    torch.testing.assert_close(loss, expected)
    weights = [*method.backbone.trunk.blocks.parameters(), method.mask_token, *method.head.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_teacher_sees_all_and_the_student_no_masked_patch(setting) -> None:
    method, batch = setting("data2vec")
    tokens = batch.views[0].value.value.requires_grad_()
    method(batch).loss.backward()
    where = batch.views[0].mask.where
    assert where.any(dim=1).all()
    assert not tokens.grad[where].any()
    before = method(batch).loss
    with torch.no_grad():
        tokens[where] += 1.0
    assert not method(batch).loss.equal(before)


def test_the_teacher_follows_and_evaluation_gets_the_student(setting) -> None:
    method, _ = setting("data2vec", momentum=0.9)
    before = [weight.clone() for weight in method.teacher.parameters()]
    with torch.no_grad():
        for weight in method.backbone.parameters():
            weight.add_(1.0)
    method.after_step(0.5, {})
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
    assert method.encoder("image") is method.backbone


def test_120_of_196_patches_are_masked_at_most() -> None:
    kind = load("data2vec")
    [crop] = kind.views(kind.Hyper()).specs
    assert crop.mask == BlockMask(0.6125, 0.6125, smallest=16)
    torch.manual_seed(0)
    number = crop.mask.draw(torch.rand(500, crop.mask.num_draws((14, 14))), (14, 14)).number
    assert number.max() == 120
    assert number.double().mean() == pytest.approx(119.5, abs=0.2)  # as of 3000 masks of the plain algorithm
