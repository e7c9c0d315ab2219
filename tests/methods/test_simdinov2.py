"""SimDINOv2: its loss put together crop by crop and covered patch by covered patch; rates of layers."""

import pytest
import torch
import torch.nn.functional as F

from selfsup.parts.distillation import crossed
from selfsup.parts.redundancy import coding_rate


@pytest.mark.parametrize("share", [0.5, 1.0, 0.0])
def test_the_loss_is_put_together_patch_by_patch(share: float, setting, moved) -> None:
    method, batch = setting("simdinov2", mask_share=share, patch_weight=3.0)
    moved(method.teacher, method.teacher_head)
    unit = lambda head, hidden: F.normalize(head(hidden), dim=-1)  # noqa: E731
    seen = [unit(method.teacher_head, method.teacher(view.value)) for view in batch.views[:2]]
    large = [method.backbone(view.value, cover=(view.mask.where, method.mask_token)) for view in batch.views[:2]]
    told = [unit(method.head, hidden) for hidden in large]
    small = [unit(method.head, method.backbone(view.value)[:, 0]) for view in batch.views[2:]]
    students, targets = (
        torch.stack([*(view[:, 0] for view in told), *small]),
        torch.stack([view[:, 0] for view in seen]),
    )
    patches, covered = 0.0, 0
    for view, target, output in zip(batch.views, seen, told, strict=False):
        for where, one, other in zip(view.mask.where, target[:, 1:], output[:, 1:], strict=True):
            covered += int(where.any())
            patches += (one[where] - other[where]).square().sum(1).mean().item() / 2 / 16 if where.any() else 0.0
    assert (covered > 0) == (share > 0)
    error, rate = crossed(students, targets), coding_rate((students[:2] + targets) / 2, distortion=0.05)
    out = method(batch)
    assert out.log["patches"].item() == pytest.approx(patches, rel=1e-4, abs=1e-7)
    torch.testing.assert_close(out.loss, error - rate + 3 * patches, rtol=1e-4, atol=1e-5)


def test_blocks_learn_slower_from_the_first_on(setting) -> None:
    method, _ = setting("simdinov2")
    weights = dict(method.named_parameters())

    def rate(name: str) -> float:
        return method.param_options(name, weights[name]).lr_scale

    trunk = "encoders.image.trunk."
    assert rate(f"{trunk}blocks.1.attn.qkv.weight") == pytest.approx(0.9)
    assert rate(f"{trunk}blocks.0.attn.qkv.weight") == pytest.approx(0.9**2)
    assert rate("mask_token") == rate(f"{trunk}cls_token") == pytest.approx(0.9**3)
    assert rate(f"{trunk}patch_embed.proj.weight") == pytest.approx(0.2 * 0.9**3)
    assert method.param_options("head.0.weight", weights["head.0.weight"]).clip_group == "head"
