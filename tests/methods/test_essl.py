"""E-SSL against lightly's contrast, and a rotation loss added up crop by crop on images turned by hand."""

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from selfsup.method import load
from selfsup.parts.patch import patchify, unpatchify


def left(image: Tensor) -> Tensor:
    """(1, C, S, S): what was the right edge, from top to bottom, becomes the top edge."""
    side = image.shape[2]
    made = torch.empty_like(image)
    for row in range(side):
        for column in range(side):
            made[:, :, row, column] = image[:, :, column, side - 1 - row]
    return made


def test_the_loss_is_a_contrast_and_four_rotations_of_every_crop(setting) -> None:
    method, batch = setting("essl", equivariance=0.7, temperature=0.3)
    one, two = (method.projector(method.backbone.pooled(view.value)) for view in batch.views[:2])
    errors = []
    for image in unpatchify(batch.views[2].value.value, grid=(2, 2), patch=4).split(1):
        turned = image
        for turn in range(4):
            chances = method.predictor(method.backbone.pooled(patchify(turned, 4))).softmax(dim=1)
            errors.append(-chances[0, turn].log())
            turned = left(turned)
        assert turned.equal(image)
    out, rotation = method(batch), sum(errors) / 32
    torch.testing.assert_close(out.log["rotation"], rotation)
    torch.testing.assert_close(out.loss, NTXentLoss(temperature=0.3)(one, two) + 0.7 * rotation)


def test_images_are_turned_as_tokens_are(setting) -> None:
    method, batch = setting("essl", "cnn")
    crop, upside_down = batch.views[2].value, batch.views[2].value.flip(2, 3)
    copies = torch.cat([crop, left(crop), upside_down, left(upside_down)])
    chances = method.predictor(method.backbone.pooled(copies)).log_softmax(dim=1)
    truth = [number // 8 for number in range(32)]
    expected = -sum(chances[number, turn] for number, turn in enumerate(truth)) / 32
    torch.testing.assert_close(method(batch).log["rotation"], expected)


def test_the_crop_that_is_turned_is_the_papers() -> None:
    method = load("essl")
    first, second, small = method.views(method.Hyper()).crops
    assert (small.size, small.scale) == (96, (0.05, 0.14))
    assert (first.blur, second.blur, small.blur) == pytest.approx((1.0, 0.1, 0.1))
    assert (first.solarize, second.solarize, small.solarize) == (0.0, 0.2, 0.0)
