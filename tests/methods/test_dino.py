"""DINO: its loss and center against lightly's, step after step; what moves when; what evaluation gets."""

from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss
from lightly.loss.swav_loss import sinkhorn

from selfsup.optim import build
from selfsup.parts.schedules import cosine
from selfsup.sections import Optim
from selfsup.train import train


def said(method, batch):
    """Return the outputs of student and teacher, view by view."""
    students = [method.head(method.backbone.pooled(view.value)) for view in batch.views]
    teachers = [method.teacher_head(method.teacher.pooled(view.value)).detach() for view in batch.views[:2]]
    return students, teachers


def test_every_step_is_lightlys(setting) -> None:
    """Loss, gradient and center, while the temperature of the teacher rises over three of five epochs of two steps."""
    method, batch = setting("dino", teacher_warmup=0.6)
    theirs = DINOLoss(output_dim=24, student_temp=0.1, center_momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    for step in range(7):
        students, teachers = said(method, batch)
        expected = theirs(teachers, students, teacher_temp=[0.04, 0.055, 0.07, 0.07][step // 2])
        grads = torch.autograd.grad(expected, list(method.head.parameters()))
        out = method(batch)
        torch.testing.assert_close(out.loss, expected)
        optimizer.zero_grad()
        out.loss.backward()
        own = [weight.grad for weight in method.head.parameters()]
        torch.testing.assert_close(own, list(grads), rtol=1e-4, atol=1e-5)
        optimizer.step()
        method.after_step(step / 10, {name: value.detach() for name, value in out.aux.items()})
        torch.testing.assert_close(method.center, theirs.center[0, 0])


def test_sinkhorn_balances_both_views_together(setting) -> None:
    method, batch = setting("dino", balance="sinkhorn")
    students, teachers = said(method, batch)
    codes = sinkhorn(torch.cat(teachers), iterations=3, epsilon=0.04).chunk(2)
    pairs = [(code, student) for code in range(2) for student in range(4) if code != student]
    terms = [-(codes[code] * F.log_softmax(students[student] / 0.1, dim=1)).sum(1).mean() for code, student in pairs]
    assert len(terms) == 6
    torch.testing.assert_close(method(batch).loss, sum(terms) / 6)


def test_the_last_layer_waits(setting) -> None:
    method, batch = setting("dino", freeze=0.5)
    told = Optim(lr=1e-2, lr_batch=8)
    settings = {"start": 0, "steps": 4, "warmup_steps": 0, "batch_size": 8, "seed": 0}
    last, first = method.head[-1].weight.clone(), method.head[0].weight.clone()
    moved = []
    for _ in train(method, method, build(method, told), repeat(batch), optim=told, **settings):
        moved.append((not method.head[-1].weight.equal(last), not method.head[0].weight.equal(first)))
    assert moved == [(False, True), (False, True), (True, True), (True, True)]


def test_the_teacher_follows_and_is_what_evaluation_gets(setting) -> None:
    method, batch = setting("dino", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    expected = {name: weight.clone() for name, weight in method.teacher.named_parameters()}
    head = method.teacher_head[0].weight.clone()
    for step in range(3):
        out = method(batch)
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 3, {name: value.detach() for name, value in out.aux.items()})
        momentum, online = cosine(step / 3, 0.9, 1.0), dict(method.backbone.named_parameters())
        expected = {name: momentum * old + (1 - momentum) * online[name].detach() for name, old in expected.items()}
        head = momentum * head + (1 - momentum) * method.head[0].weight.detach()
    torch.testing.assert_close(dict(method.encoder("image").named_parameters()), expected)
    torch.testing.assert_close(method.teacher_head[0].weight, head)
    assert not any(weight.requires_grad for weight in method.encoder("image").parameters())


@pytest.mark.parametrize("crops", [0, 3])
def test_small_crops_are_seen_by_the_student_alone(crops: int, setting) -> None:
    method, batch = setting("dino", local_crops=crops)
    sides = [int(view.value.value.shape[1] ** 0.5) for view in batch.views]
    assert sides == [4, 4] + [2] * crops
    before = method(batch)
    for view in batch.views[2:]:
        view.value.value.neg_()
    after = method(batch)
    assert after.aux["logits"].equal(before.aux["logits"])
    assert after.loss.equal(before.loss) == (crops == 0)
