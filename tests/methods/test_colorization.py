"""Colorization: the loss place by place against scikit-image's L*a*b*; weights of rare colors; pictures."""

import numpy as np
import pytest
import torch
from precision import double_precision
from skimage.color import rgb2lab

from selfsup.parts.patch import patchify, unpatchify

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def test_the_loss_is_that_of_five_soft_bins_a_place(setting) -> None:
    method, batch = setting("colorization", double=True, balance=1.0)
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    lab = rgb2lab((images.movedim(1, 3).numpy() * STD + MEAN).clip(0, 1))
    seen = patchify(method.images.gray(torch.from_numpy(lab).movedim(3, 1)), 4)
    logs = method.painter(method.backbone.spatial(seen)).log_softmax(dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for sample in range(8):
        for row in range(4):
            for column in range(4):
                apart = np.hypot(*(lab[sample, 4 * row, 4 * column, 1:] - method.centers.numpy()).T)
                for place in np.argsort(apart)[:5]:
                    share = np.exp(-(apart[place] ** 2) / 50) / np.exp(-(np.sort(apart)[:5] ** 2) / 50).sum()
                    total = total - share * logs[sample, place, row, column] / 128
    with double_precision():
        loss = method(batch).loss
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, total))
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-12)


def test_rare_colors_weigh_more_and_the_mean_is_one(setting) -> None:
    method, batch = setting("colorization")
    for _ in range(3):
        method.after_step(0.0, method(batch).aux)
    assert method.prior.sum().item() == pytest.approx(1)
    weights, order = method._weights(), method.prior.argsort()
    assert weights[order[-1]] < weights[order[0]]
    kernel = (-(torch.cdist(method.centers, method.centers) ** 2) / 50).exp()
    smooth = method.prior @ (kernel / kernel.sum(dim=1, keepdim=True))
    assert (smooth @ weights).item() == pytest.approx(1, rel=1e-5)
    by_hand = 1 / (0.5 * smooth + 0.5 / 261)
    torch.testing.assert_close(weights / weights[0], by_hand / by_hand[0])


def test_a_picture_has_the_images_own_lightness(setting) -> None:
    method, batch = setting("colorization", "cnn")
    method.eval()
    images = batch.views[0].value * 0.3  # within what sRGB has
    batch = batch._replace(views=(batch.views[0]._replace(value=images),))
    lab, seen = method.images.lab(images), method.images.lab(method.seen(batch))
    torch.testing.assert_close(seen[:, 0], lab[:, 0], rtol=0, atol=0.05)
    assert seen[:, 1:].abs().max() < 0.05
    assert method.reconstruct(batch).shape == images.shape
