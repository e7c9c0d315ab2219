"""Split-brain: colors from the lightness and lightness from the colors, class by class against scikit-image."""

import numpy as np
import torch
from precision import double_precision
from skimage.color import rgb2lab

from selfsup.parts.patch import patchify, unpatchify

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def test_the_loss_is_that_of_both_halves(setting) -> None:
    method, batch = setting("split_brain", double=True)
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    lab = rgb2lab((images.movedim(1, 3).numpy() * STD + MEAN).clip(0, 1))
    tensor, small = torch.from_numpy(lab).movedim(3, 1), lab[:, ::4, ::4]
    logs = []
    for half, painter in ((method.images.gray, method.colors), (method.images.colors, method.lightness)):
        logs.append(painter(method.backbone.spatial(patchify(half(tensor), 4))).log_softmax(dim=1))
    total = torch.zeros((), dtype=torch.float64)
    for at in np.ndindex(8, 4, 4):
        color = np.hypot(*(small[at][1:] - method.centers.numpy()).T).argmin()
        total = total - (logs[0][at[0], color, at[1], at[2]] + logs[1][at[0], int(small[at][0]), at[1], at[2]]) / 128
    with double_precision():
        loss = method(batch).loss
        assert method.reconstruct(batch).shape == method.seen(batch).shape == (8, 3, 16, 16)
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, total))
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-12)
