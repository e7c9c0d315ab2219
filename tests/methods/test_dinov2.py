"""DINOv2: each of its losses against lightly's on boolean-indexed tokens; the pace of its weights."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from torchvision.transforms import RandomApply

from selfsup.encoder import build
from selfsup.method import load
from selfsup.sections import Backbone
from selfsup.spec import read

REGISTERS = Backbone(
    name="vit_small_patch14_reg4_dinov2", image_size=16, patch_size=4, width=48, depth=2, heads=3, positions="learned"
)


@pytest.mark.parametrize(("shared", "prefix"), [(False, 1), (True, 1), (False, 5)])
def test_the_loss_is_put_together_from_lightlys(shared: bool, prefix: int, setting, moved) -> None:
    method, batch = setting("dinov2", shared_head=shared, koleo_split=2)
    if prefix == 5:
        method = load("dinov2")(method.hyper, {"image": build(REGISTERS)}, method.info)
    assert len(method.heads) == 2 - shared
    moved(method.teacher, method.teacher_heads, by=0.02)
    mask = torch.cat([view.mask.where for view in batch.views[:2]])
    assert 0 < mask.any(dim=1).sum() < 16
    covered = [method.backbone(view.value, cover=(view.mask.where, method.mask_token)) for view in batch.views[:2]]
    hidden = [*covered, *(method.backbone(view.value) for view in batch.views[2:])]
    seen = torch.cat([method.teacher(view.value) for view in batch.views[:2]]).detach()

    codes = sinkhorn(method.teacher_heads[0](seen[:, 0]), iterations=3, epsilon=0.04).detach().chunk(2)
    told = [F.log_softmax(method.heads[0](view[:, 0]) / 0.1, dim=1) for view in hidden]
    pairs = [(code, view) for code in range(2) for view in range(4) if code != view]
    images = sum(-(codes[code] * told[view]).sum(1).mean() for code, view in pairs) / 6

    targets = sinkhorn(method.teacher_heads[-1](seen[:, prefix:][mask]), iterations=3, epsilon=0.04).detach()
    theirs = IBOTPatchLoss(output_dim=24, teacher_temp=1.0, student_temp=0.1)  # a softmax of a logarithm is itself
    student = method.heads[-1](torch.cat(covered)[:, prefix:][mask])
    patches = theirs(targets.log(), student, mask.view(16, 4, 4))

    koleo = (KoLeoLoss()(covered[0][::2, 0]) + KoLeoLoss()(covered[0][1::2, 0])) / 2
    out, expected = method(batch), images + patches + 0.1 * koleo
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(out.log["koleo"], koleo)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    ours, grads = torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights)
    torch.testing.assert_close(ours, grads, rtol=1e-3, atol=1e-4)


def test_a_batch_without_covered_tokens_teaches_by_images(setting) -> None:
    method, batch = setting("dinov2", mask_share=0.0)
    out = method(batch)
    out.loss.backward()
    assert out.log["patches"] == 0
    torch.testing.assert_close(out.loss, out.log["images"] + 0.1 * out.log["koleo"])
    assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.requires_grad)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("encoders.image.trunk.patch_embed.proj.weight", 0.2 * 0.9**3),
        ("encoders.image.trunk.cls_token", 0.9**3),
        ("mask_token", 0.9**3),
        ("encoders.image.trunk.blocks.0.mlp.fc1.weight", 0.9**2),
        ("encoders.image.trunk.blocks.1.mlp.fc1.weight", 0.9),
        ("encoders.image.trunk.norm.weight", 1.0),
        ("heads.0.0.weight", 1.0),
    ],
)
def test_lower_layers_learn_more_slowly(name: str, scale: float, setting) -> None:
    method, _ = setting("dinov2")
    pace = method.param_options(name, dict(method.named_parameters())[name])
    assert (pace.lr_scale, pace.frozen_until) == (pytest.approx(scale), 0.0)


def test_last_layers_wait_and_evaluation_gets_the_teacher(setting) -> None:
    method, _ = setting("dinov2")
    waiting = {name for name, weight in method.named_parameters() if method.param_options(name, weight).frozen_until}
    assert waiting == {f"heads.{head}.5.{part}" for head in (0, 1) for part in ("weight", "lengths")}
    assert method.encoder("image") is method.teacher


def test_the_teacher_grows_warm(setting) -> None:
    method, _ = setting("dinov2", teacher_warmup=0.3)
    found = [method.temperature.item()]
    for step in range(4):
        method.after_step(step / 10, {})
        found.append(method.temperature.item())
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_the_code_of_its_recipe_blurs_the_views_that_dino_leaves_sharp() -> None:
    """torchvision's RandomApply, given 1 - p as in their code: applied to a share of 1 - 1, 1 - 0.1 and 1 - 0.5."""
    method, hyper = load("dinov2"), read("in1k/dinov2").hyper
    image, shares = torch.zeros(1), (1.0, 0.1, *[0.5] * 8)
    torch.manual_seed(0)
    marks = [RandomApply([lambda x: x + 1], p=1 - share) for share in shares]
    found = [sum(mark(image).item() for _ in range(2000)) / 2000 for mark in marks]
    assert [crop.blur for crop in method.views(hyper).specs] == pytest.approx(found, abs=0.04)
    assert [crop.blur for crop in method.views(method.Hyper()).specs] == pytest.approx(shares)
