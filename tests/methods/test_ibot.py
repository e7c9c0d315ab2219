"""iBOT: its losses and centers against lightly's; what is covered; batches in which nothing is."""

import torch
from lightly.loss import DINOLoss, IBOTPatchLoss


def test_every_step_is_lightlys(setting) -> None:
    """Their patch loss gets the covered tokens alone; its center is the paper's, of all tokens, moved here by hand."""
    method, batch = setting("ibot", teacher_warmup=0.6)
    images, patches = DINOLoss(output_dim=24, student_temp=0.1), IBOTPatchLoss(output_dim=24, student_temp=0.1)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    mask, center = torch.cat([view.mask.where for view in batch.views[:2]]), torch.zeros(24)
    assert 0 < mask.any(dim=1).sum() < 16
    for step in range(7):
        temperature = [0.04, 0.055, 0.07, 0.07][step // 2]
        covered = [method.backbone(view.value, cover=(view.mask.where, method.mask_token)) for view in batch.views[:2]]
        small = [method.backbone(view.value) for view in batch.views[2:]]
        students = [method.head(hidden) for hidden in [*covered, *small]]
        teachers = [method.teacher_head(method.teacher(view.value)).detach() for view in batch.views[:2]]
        told = torch.cat(teachers)[:, 1:]
        patches.center.center = center[None]
        expected = images([t[:, 0] for t in teachers], [s[:, 0] for s in students], teacher_temp=temperature)
        student = torch.cat(students[:2])[:, 1:]
        expected = expected + patches(told[mask], student[mask], mask.view(16, 4, 4), teacher_temp=temperature)
        weights = [*method.head.parameters(), method.mask_token]
        grads = torch.autograd.grad(expected, weights)
        out = method(batch)
        torch.testing.assert_close(out.loss, expected)
        optimizer.zero_grad()
        out.loss.backward()
        torch.testing.assert_close([weight.grad for weight in weights], list(grads), rtol=1e-4, atol=1e-5)
        optimizer.step()
        method.after_step(step / 10, {name: value.detach() for name, value in out.aux.items()})
        center = 0.9 * center + 0.1 * torch.stack([token for view in told for token in view]).mean(dim=0)
        torch.testing.assert_close(method.center, images.center[0, 0])
        torch.testing.assert_close(method.patch_center, center)


def test_the_student_does_not_see_what_is_covered(setting) -> None:
    method, batch = setting("ibot")
    for view in batch.views[:2]:
        view.value.value.requires_grad_()
    method(batch).loss.backward()
    for view in batch.views[:2]:
        assert not view.value.value.grad[view.mask.where].any()
        assert view.value.value.grad[~view.mask.where].any(dim=1).all()


def test_a_batch_without_covered_tokens_teaches_by_images(setting) -> None:
    method, batch = setting("ibot", mask_share=0.0)
    assert not any(view.mask.number.any() for view in batch.views[:2])
    out = method(batch)
    out.loss.backward()
    assert out.log["patches"] == 0
    assert out.loss.equal(out.log["images"])
    assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.requires_grad)


def test_weights_say_how_much_each_loss_counts(setting) -> None:
    method, batch = setting("ibot", image_weight=0.5, patch_weight=2.0)
    out = method(batch)
    torch.testing.assert_close(out.loss, 0.5 * out.log["images"] + 2 * out.log["patches"])


def test_evaluation_gets_the_teacher(setting) -> None:
    method, _ = setting("ibot")
    assert method.encoder("image") is method.teacher
    assert [name for name, weight in method.named_parameters() if method.param_options(name, weight).frozen_until] == [
        "head.5.weight"
    ]
