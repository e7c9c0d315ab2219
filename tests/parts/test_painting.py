"""Painters: pixels lie where the features of their place are."""

import pytest
import torch
from small import BACKBONES

from selfsup.encoder import build
from selfsup.parts.painting import Painter, stride
from selfsup.sections import Backbone


def test_a_place_paints_its_own_pixels() -> None:
    painter, features = Painter(5, 3, 4, width=8, depth=0), torch.randn(2, 5, 3, 2)
    painted = painter(features)
    assert painted.shape == (2, 3, 12, 8)
    changed = features.clone()
    changed[:, :, 1, 0] += 1
    moved = (painter(changed) != painted).any(dim=1)
    assert moved[:, 4:8, :4].all()
    assert moved.sum() == 2 * 16
    weight = painter[0].weight.view(3, 4, 4, 5)  # the channel, the row and the column that each row is for
    by_hand = torch.einsum("crsd,bd->bcrs", weight, features[:, :, 0, 1]) + painter[0].bias.view(3, 4, 4)
    torch.testing.assert_close(painted[:, :, :4, 4:], by_hand)


def test_hidden_layers_are_normalized_and_see_their_neighbors() -> None:
    painter = Painter(5, 3, 2, width=8, depth=2)
    assert [type(layer).__name__ for layer in painter] == [
        *["Conv2d", "BatchNorm2d", "ReLU"] * 2,
        "Conv2d",
        "PixelShuffle",
    ]
    assert painter(torch.randn(2, 5, 3, 3)).shape == (2, 3, 6, 6)


@pytest.mark.parametrize(("backbone", "expected"), [
    (BACKBONES["vit"], 4), (BACKBONES["cnn"], 8), (Backbone(name="resnet18", image_size=64), 32),
])  # fmt: skip
def test_a_place_has_the_pixels_that_an_encoder_gives_it(backbone: Backbone, expected: int) -> None:
    encoder = build(backbone)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert stride(encoder, 3, (backbone.image_size,) * 2) == expected
    assert encoder.training
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
