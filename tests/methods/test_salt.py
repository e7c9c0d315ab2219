"""SALT: its loss by lightly's predictor, and a teacher that stays as it is and may be of another size."""

import torch
from lightly_predictor import compare_gradients, theirs
from small import SMALL, setting

from selfsup.encoder import build
from selfsup.frozen import Frozen
from selfsup.method import Batch, Method, TrainInfo, load
from selfsup.multiblock import MultiBlockMask
from selfsup.sections import Backbone

SALT = load("salt")
SIZES = {"image_size": 16, "depth": 2, "heads": 3, "pool": "mean"}


def made(moved, *, patch: int = 4, width: int = 48) -> tuple[Method, Batch]:
    """Return the objective on a ViT without a class token, as lightly's predictor has it. patch, width: a teacher's."""
    _, batch = setting("salt")
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(16, 16))
    own, other = (
        build(Backbone(name="vit_huge_patch14_gap_224", patch_size=side, width=size, **SIZES))
        for side, size in ((4, 48), (patch, width))
    )
    mae = load("mae")(load("mae").Hyper(decoder_depth=1), {"image": other}, info)
    method = SALT(SALT.Hyper(**SMALL["salt"]), {"image": own}, info._replace(teacher=Frozen(mae, 4)))
    moved(method.predictor)
    return method, batch


def test_the_loss_is_lightlys_predictor_against_a_frozen_teacher(moved) -> None:
    method, batch = made(moved)
    view, predictor = batch.views[0], theirs(method)
    blocks = list(view.mask.targets.unbind(1))
    predicted = predictor(method.backbone(view.value, view.mask.keep), view.mask.keep, blocks)
    told = method.teacher.method.backbone(view.value).detach()
    told = (told - told.mean(2, keepdim=True)) / (told.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    wanted = torch.cat([torch.stack([rows[at] for rows, at in zip(told, b, strict=True)]) for b in blocks])
    loss, expected = method(batch).loss, (predicted - wanted).abs().mean()
    torch.testing.assert_close(loss, expected)
    compare_gradients(method, predictor, loss, expected)


def test_a_teacher_may_have_other_patches_and_channels_and_stays_as_it_is(moved) -> None:
    method, batch = made(moved, patch=8, width=24)
    before = [weight.clone() for weight in method.teacher.method.parameters()]
    optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], lr=1.0)
    first = method(batch).loss
    first.backward()
    optimizer.step()
    assert method(batch).loss < first
    assert all(a.equal(b) for a, b in zip(before, method.teacher.method.parameters(), strict=True))
    assert not any("teacher" in name for name in method.state_dict())


def test_the_encoder_sees_the_context_alone() -> None:
    method, batch = setting("salt")
    tokens = batch.views[0].value.value.requires_grad_()
    method(batch).loss.backward()
    assert not tokens.grad[batch.views[0].mask.removed].any()
    [crop] = SALT.views(SALT.Hyper()).specs
    assert crop.mask == MultiBlockMask(4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), 10)
