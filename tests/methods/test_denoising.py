"""Denoising: corruption value by value, and the error that each has, on a ViT and a CNN."""

import pytest
import torch
from precision import double_precision

from selfsup.parts import noise
from selfsup.parts.patch import patchify, unpatchify


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_loss_is_of_what_was_lost_and_of_what_was_not(kind: str, setting) -> None:
    method, batch = setting("denoising", kind, double=True, share=0.4, emphasis=0.25)
    value = batch.views[0].value
    clean = unpatchify(value.value, grid=(4, 4), patch=4) if kind == "vit" else value
    lost = noise.uniform(batch.draws, (3, 16, 16)) < 0.4
    seen = torch.where(lost, 0.0, clean)
    painted = method.painter(method.backbone.spatial(patchify(seen, 4) if kind == "vit" else seen))
    error = (painted - clean) ** 2
    expected = (error[lost].sum() + 0.25 * error[~lost].sum()) / lost.numel()
    method.eval(), method.train()
    with double_precision():
        out = method(batch)
    torch.testing.assert_close(out.loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(out.log["error"], error.mean(), rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(loss, weights) for loss in (out.loss, expected))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-12)


def test_a_share_of_values_is_lost_each_by_itself(setting) -> None:
    method, batch = setting("denoising", "cnn", share=0.3)
    lost = method.seen(batch) == 0
    assert lost.float().mean().item() == pytest.approx(0.3, abs=5 * (0.21 / lost.numel()) ** 0.5)
    both = (lost[:, 0] & lost[:, 1]).float().mean().item()  # of two channels of a pixel
    assert both == pytest.approx(0.09, abs=5 * (0.09 / lost[:, 0].numel()) ** 0.5)
    assert not lost[0].equal(lost[1])


def test_gaussian_noise_has_its_deviation(setting) -> None:
    method, batch = setting("denoising", noise="gaussian", sigma=0.7)
    added = method.seen(batch) - unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    assert added.std().item() == pytest.approx(0.7, rel=0.05)
    assert added.mean().abs().item() < 5 * 0.7 / added.numel() ** 0.5


def test_a_picture_is_painted_from_what_is_seen(setting) -> None:
    method, batch = setting("denoising")
    method.eval()
    assert method.reconstruct(batch).shape == method.seen(batch).shape == (8, 3, 16, 16)
