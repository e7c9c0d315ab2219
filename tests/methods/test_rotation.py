"""Rotation: on a ViT, as on images turned by hand; a classifier that cannot know is at chance."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from precision import double_precision

from selfsup.parts.patch import patchify, unpatchify


def test_the_loss_is_of_four_turns_of_every_image(setting) -> None:
    method, batch = setting("rotation", double=True)
    tokens = batch.views[0].value
    images = unpatchify(tokens.value, grid=tokens.grid, patch=4).numpy()
    expected = []
    for turn in range(4):
        turned = torch.from_numpy(np.stack([np.rot90(image, turn, (1, 2)) for image in images]))
        logs = method.head(method.backbone.pooled(patchify(turned, 4))).log_softmax(dim=1)
        expected.append(F.nll_loss(logs, torch.full((8,), turn)))
    with double_precision():
        loss, mean = method(batch).loss, torch.stack(expected).mean()
    torch.testing.assert_close(loss, mean, rtol=1e-9, atol=0)
    weights = list(method.parameters())
    slopes = (torch.autograd.grad(value, [w for w in weights if w.requires_grad]) for value in (loss, mean))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-12)


def test_without_a_head_it_is_at_chance(setting) -> None:
    method, batch = setting("rotation")
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)
    out = method(batch)
    assert out.loss.item() == torch.tensor(math.log(4)).item()
    assert out.log["accuracy"].item() == 0.25
