"""DINOv3: its losses against lightly's and a Gram matrix by hand; how its second stage goes on from the first."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from small import moved, shake
from torch import Tensor

from selfsup.encoder import build
from selfsup.frozen import Frozen
from selfsup.method import Method, TrainInfo, load
from selfsup.resources import Resources
from selfsup.sections import Backbone, Duration, Setup, Train
from selfsup.spec import read
from selfsup.views import Crop

DINO = load("dinov3")
ROPE = Backbone(name="vit_small_patch16_dinov3_qkvb", image_size=16, patch_size=4, width=48, depth=2, heads=3)
INFO = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(16, 16))


def second_stage(setting, **hyper: object) -> tuple[Method, Method, object]:
    """Return both stages on a ViT with registers and rotary positions, the first away from its beginning; a batch."""
    plain, batch = setting("dinov3", **hyper)
    first = DINO(plain.hyper.model_copy(update={"gram_size": None}), {"image": build(ROPE, DINO.initialize)}, INFO)
    shake(first)
    moved(first.teacher, first.teacher_heads, by=0.02)
    info = INFO._replace(teacher=Frozen(first, 4))
    return first, DINO(plain.hyper, {"image": build(ROPE, DINO.initialize)}, info), batch


def cubic(x: float) -> float:
    """Keys's kernel, as PyTorch has it."""
    x, a = abs(x), -0.75
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def fewer(old: int, new: int) -> Tensor:
    """-> (new, old): a bicubic resampling of a row, whose ends go on beyond it."""
    matrix = torch.zeros(new, old)
    for row in range(new):
        center = (row + 0.5) * old / new - 0.5
        for place in range(math.floor(center) - 1, math.floor(center) + 3):
            matrix[row, min(max(place, 0), old - 1)] += cubic(center - place)
    return matrix


def test_the_loss_is_put_together_from_lightlys_and_a_gram_matrix(setting) -> None:
    _, method, batch = second_stage(setting, koleo_split=2, gram_weight=3.0)
    moved(method.teacher, method.teacher_heads, method.gram_teacher, by=0.02)
    large, small, plain = batch.views[:2], batch.views[2:4], batch.views[4:]
    mask = torch.cat([view.mask.where for view in large])
    assert 0 < mask.any(dim=1).sum() < 16
    covered = [method.backbone(view.value, cover=(view.mask.where, method.mask_token)) for view in large]
    hidden = [*covered, *(method.backbone(view.value) for view in small)]
    seen = torch.cat([method.teacher(view.value) for view in large]).detach()

    codes = sinkhorn(method.teacher_heads[0](seen[:, 0]), iterations=3, epsilon=0.04).detach().chunk(2)
    told = [F.log_softmax(method.heads[0](view[:, 0]) / 0.1, dim=1) for view in hidden]
    pairs = [(code, view) for code in range(2) for view in range(4) if code != view]
    expected = sum(-(codes[code] * told[view]).sum(1).mean() for code, view in pairs) / 6

    targets = sinkhorn(method.teacher_heads[1](seen[:, 5:][mask]), iterations=3, epsilon=0.04).detach()
    theirs = IBOTPatchLoss(output_dim=24, teacher_temp=1.0, student_temp=0.1)  # a softmax of a logarithm is itself
    expected = expected + theirs(targets.log(), method.heads[1](torch.cat(covered)[:, 5:][mask]), mask.view(16, 4, 4))
    for view in covered:
        expected = expected + 0.1 * (KoLeoLoss()(view[::2, 0]) + KoLeoLoss()(view[1::2, 0])) / 2

    gram, resample = 0.0, fewer(6, 4)
    for own, view in zip(covered, plain, strict=True):
        places = method.gram_teacher(view.value)[:, 5:].detach().view(8, 6, 6, 48)
        anchors = torch.einsum("ai,bj,nijd->nabd", resample, resample, places).flatten(1, 2)
        for patches, other in zip(own[:, 5:], anchors, strict=True):
            alike, once = (torch.corrcoef(torch.cat([rows, -rows], dim=1)) for rows in (patches, other))  # of mean 0
            gram = gram + (alike - once).square().sum() / 16**2 / 16
    out = method(batch)
    torch.testing.assert_close(out.log["gram"], gram, rtol=1e-4, atol=1e-6)
    expected = expected + 3 * gram
    torch.testing.assert_close(out.loss, expected)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    ours, grads = torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights)
    torch.testing.assert_close(ours, grads, rtol=1e-3, atol=1e-4)


def test_the_second_stage_goes_on_where_the_teachers_of_the_first_ended(setting) -> None:
    first, method, batch = second_stage(setting)
    assert first.gram_teacher is None
    assert "gram" not in first(batch._replace(views=batch.views[:4])).log
    for own in (method.backbone, method.teacher, method.gram_teacher):
        assert all(weight.equal(first.teacher.state_dict()[name]) for name, weight in own.state_dict().items())
    for own in (method.heads, method.teacher_heads):
        assert all(weight.equal(first.teacher_heads.state_dict()[name]) for name, weight in own.state_dict().items())
    assert method.mask_token.equal(first.mask_token)
    assert method.mask_token.any()
    assert method.encoder("image") is method.teacher


def test_the_gram_teacher_becomes_what_the_teacher_is_now_and_then(setting) -> None:
    _, method, _ = second_stage(setting, renewals=2, renewed_every=0.3, momentum=0.5)
    renewed = []
    for step in range(10):
        moved(method.backbone)
        method.after_step(step / 10, {})
        own, teacher = method.gram_teacher.state_dict(), method.teacher.state_dict()
        renewed.append(all(weight.equal(teacher[name]) for name, weight in own.items()))
    assert [step for step, same in enumerate(renewed, start=1) if same] == [3, 6]


def test_its_momentum_stays_and_its_temperature_rises(setting) -> None:
    method, _ = setting("dinov3", gram_size=None, teacher_warmup=0.3, momentum=0.8, momentum_end=0.8)
    temperatures = [method.temperature.item()]
    for step in range(4):
        before = [weight.clone() for weight in method.teacher.parameters()]
        with torch.no_grad():
            for own, weight in zip(method.teacher.parameters(), method.backbone.parameters(), strict=True):
                weight.copy_(own + 1)
        method.after_step(step / 10, {})
        temperatures.append(method.temperature.item())
        for old, new in zip(before, method.teacher.parameters(), strict=True):
            torch.testing.assert_close(new, old + 0.2)
    assert temperatures == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_the_gram_teacher_sees_what_the_student_does_undistorted(setting) -> None:
    hyper = read("in1k/dinov3_gram").hyper
    *crops, first, second = DINO.views(hyper).specs
    assert [first, second] == [Crop(size=448, scale=(0.32, 1.0), of=number) for number in (0, 1)]
    assert [crop.blur for crop in crops] == pytest.approx([0.0, 0.9, *[0.5] * 8])
    method, batch = setting("dinov3")
    [gram_view] = {view.value.grid for view in batch.views[4:]}
    assert (gram_view, batch.views[0].value.grid) == ((6, 6), (4, 4))
    assert not any(weight.requires_grad for weight in method.gram_teacher.parameters())


def test_last_layers_wait_and_begin_as_the_others(setting) -> None:
    method, _ = setting("dinov3", outputs=4096)
    options = {name: method.param_options(name, weight) for name, weight in method.named_parameters()}
    assert {name for name, option in options.items() if option.frozen_until} == {f"heads.{n}.5.weight" for n in (0, 1)}
    assert {option.clip_group for option in options.values()} == {"all", "heads.0", "heads.1"}
    scale = options["encoders.image.trunk.patch_embed.proj.weight"].lr_scale
    assert scale == pytest.approx(0.2 * 0.98**3)
    for head in method.heads:
        assert head[-1].weight.std().item() == pytest.approx(0.02, rel=0.02)


SETUP = Setup(ROPE, Train(duration=Duration(steps=8), batch=8), Resources(), (16, 16))
REFUSED = [
    ({"outputs": 12}, SETUP, "hyper.outputs: 24 in the stage that it goes on from, not 12"),
    ({}, SETUP._replace(backbone=ROPE.model_copy(update={"width": 96})), "backbone: the encoder of the stage .*: diff"),
    ({"gram_size": 30}, SETUP, "hyper.gram_size: hyper.gram_size of 30 pixels does not divide into patches of 4"),
]


@pytest.mark.parametrize(("hyper", "setup", "message"), REFUSED)
def test_a_stage_that_it_cannot_go_on_from_is_refused(
    hyper: dict[str, int], setup: Setup, message: str, setting
) -> None:
    first, method, _ = second_stage(setting)
    info = INFO._replace(teacher=Frozen(first, 4))
    assert list(DINO.check(method.hyper, SETUP, info)) == []
    [error] = DINO.check(method.hyper.model_copy(update=hyper), setup, info)
    with pytest.raises(type(error), match=message):
        raise error


def test_another_objective_is_no_earlier_stage(setting) -> None:
    method, _ = setting("dinov3")
    other, _ = setting("simclr", "vit")
    [error] = DINO.check(method.hyper, SETUP, INFO._replace(teacher=Frozen(other, 4)))
    assert str(error) == "teacher.from: it goes on from an earlier stage of DINOv3, not from SimCLR"
