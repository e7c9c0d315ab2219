"""The pyramid against plain sums, and the detector against torchvision's own passage through a Mask R-CNN."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfsup.parts.detector import Detector, SimplePyramid, pasted
from selfsup.parts.objects import Objects

DIM, WIDTH = 8, 12
SIZES = {"width": WIDTH, "anchors": (0.5, 1, 2, 3, 4), "proposals": 30, "regions": 8}


def doubled(grid: Tensor, layer: nn.Module) -> Tensor:
    """Each place becomes two by two, by a matrix each."""
    batch, _, height, width = grid.shape
    parts = torch.einsum("bcij,copq->boipjq", grid, layer.weight) + layer.bias[:, None, None, None, None]
    return parts.reshape(batch, -1, 2 * height, 2 * width)


def normed(grid: Tensor, layer: nn.Module) -> Tensor:
    mean, var = grid.mean(1, keepdim=True), grid.var(1, keepdim=True, correction=0)
    return (grid - mean) / (var + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def ended(grid: Tensor, layers: list[nn.Module]) -> Tensor:
    """A linear map of each place, and the sum over nine neighbors of one each."""
    narrow, first, wide, second = layers
    value = normed(torch.einsum("bchw,oc->bohw", grid, narrow.weight[:, :, 0, 0]), first)
    rows, columns = value.shape[2:]
    around = torch.zeros(*value.shape[:2], rows + 2, columns + 2, dtype=value.dtype)
    around[:, :, 1:-1, 1:-1] = value
    shifted = [
        torch.einsum("bchw,oc->bohw", around[:, :, y : y + rows, x : x + columns], wide.weight[:, :, y, x])
        for y in range(3)
        for x in range(3)
    ]
    return normed(torch.stack(shifted).sum(0), second)


@torch.no_grad()
def test_the_pyramid_is_that_of_plain_sums() -> None:
    torch.manual_seed(0)
    pyramid, grid = SimplePyramid(DIM, WIDTH).double(), torch.randn(2, DIM, 4, 8).double()
    for weight in pyramid.parameters():
        weight += 0.1 * torch.randn_like(weight)
    four, two, one, half = (list(level) for level in pyramid.levels)
    gelu = normed(doubled(grid, four[0]), four[1])
    gelu = gelu * 0.5 * (1 + torch.erf(gelu / 2**0.5))
    expected = {
        "0": ended(doubled(gelu, four[3]), four[4:]),
        "1": ended(doubled(grid, two[0]), two[1:]),
        "2": ended(grid, one),
        "3": ended(grid.reshape(2, DIM, 2, 2, 4, 2).amax((3, 5)), half[1:]),
    }
    expected["pool"] = expected["3"][:, :, ::2, ::2]
    maps = pyramid(grid)
    assert [tuple(map_.shape) for map_ in maps.values()] == [
        (2, WIDTH, 16, 32), (2, WIDTH, 8, 16), (2, WIDTH, 4, 8), (2, WIDTH, 2, 4), (2, WIDTH, 1, 2)
    ]  # fmt: skip
    assert list(maps) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(maps[name], value)


def detector(classes: int = 3) -> Detector:
    torch.manual_seed(0)
    return Detector(DIM, classes, **SIZES)


def shown(boxes: list[list[int]], classes: list[int], side: int) -> Objects:
    masks = np.zeros((len(boxes), side, side), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
        mask[top, left] = False
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64), masks, np.ones(len(boxes), np.float32)
    )


class Passage(nn.Module):
    """A backbone that has the maps of tokens, whatever the image."""

    def __init__(self, pyramid: nn.Module, grid: Tensor) -> None:
        super().__init__()
        self.pyramid, self.grid = pyramid, grid

    def forward(self, image: Tensor) -> Mapping[str, Tensor]:  # noqa: ARG002
        return self.pyramid(self.grid)


def example() -> tuple[Detector, Tensor, list[Objects]]:
    """Return tokens of a grid of 4 x 4, and maps of 2 pixels a token: of two images, one without an object."""
    tokens = torch.randn(2, 16, DIM, generator=torch.Generator().manual_seed(1))
    return detector(), tokens, [shown([[0, 1, 5, 4], [4, 4, 8, 8]], [2, 0], 8), shown([], [], 8)]


def test_losses_are_those_of_torchvision_on_images_of_16_pixels_a_token() -> None:
    own, tokens, objects = example()
    torch.manual_seed(5)
    loss = own.loss(tokens, objects)

    model = own.model
    model.backbone = Passage(model.backbone, tokens.transpose(1, 2).reshape(2, DIM, 4, 4))
    model.transform._skip_resize = True  # to a size that would be drawn
    targets = [
        {
            "boxes": torch.tensor([[0.0, 8, 40, 32], [32, 32, 64, 64]]),
            "labels": torch.tensor([3, 1]),
            "masks": torch.tensor(objects[0].masks.repeat(8, 1).repeat(8, 2)).byte(),
        },
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, 64, 64).byte(),
        },
    ]
    torch.manual_seed(5)
    losses = model.train()([torch.zeros(3, 64, 64)] * 2, targets)
    assert len(losses) == 5
    torch.testing.assert_close(loss, sum(losses.values()))


def test_guesses_are_those_of_torchvision_on_images_of_16_pixels_a_token() -> None:
    own, tokens, _ = example()
    guesses = own.guesses(tokens, 8)
    model = own.model
    model.backbone = Passage(model.backbone, tokens.transpose(1, 2).reshape(2, DIM, 4, 4))
    model.transform.min_size, model.transform.max_size = (64,), 64
    with torch.inference_mode():
        expected = model.eval()([torch.zeros(3, 64, 64)] * 2)
    for guess, image in zip(guesses, expected, strict=True):
        assert 0 < len(guess.boxes) <= 100
        np.testing.assert_allclose(8 * guess.boxes, image["boxes"], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(guess.classes + 1, image["labels"])
        np.testing.assert_array_equal(guess.scores, image["scores"])
        assert guess.masks.shape == (len(guess.boxes), 8, 8)


@pytest.mark.parametrize("grid", [1, 3, 5])
def test_any_grid_is_filled_up_and_guesses_lie_inside(grid: int) -> None:
    own, side = detector(), 3 * grid
    tokens = torch.randn(2, grid**2, DIM)
    loss = own.loss(tokens, [shown([[0, 0, 2, 3]], [1], side), shown([[1, 0, 3, 3]], [2], side)])
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in own.parameters())
    for guess in own.guesses(tokens, side):
        assert guess.masks.shape[1:] == (side, side)
        assert guess.boxes.min() >= 0
        assert guess.boxes.max() <= side
        assert set(guess.classes.tolist()) <= {0, 1, 2}


def test_boxes_cannot_tell_a_filled_grid_from_one_that_is_whole() -> None:
    """Five by five tokens are seen as the first of eight by eight, of which the rest is 0."""
    own, tokens = detector(), torch.randn(1, 25, DIM)
    whole = torch.zeros(1, 8, 8, DIM)
    whole[:, :5, :5] = tokens.view(1, 5, 5, DIM)
    [part], [full] = own.guesses(tokens, 10), own.guesses(whole.flatten(1, 2), 16)
    np.testing.assert_allclose(part.boxes, full.boxes.clip(0, 10), rtol=1e-5)
    np.testing.assert_array_equal(part.masks, full.masks[:, :10, :10])


def test_masks_are_pasted_to_the_middles_of_pixels() -> None:
    masks = torch.rand(3, 1, 28, 28)
    boxes = torch.tensor([[3.0, 5, 31, 33], [-4, 0, 10, 14], [20, 20, 48, 48]])  # 28, 14 and 28 pixels a side
    values = pasted(masks, boxes, 40)
    expected = torch.zeros(3, 40, 40)
    expected[0, 5:33, 3:31] = masks[0, 0]
    expected[1, 0:14, 0:10] = masks[1, 0].view(14, 2, 14, 2).mean((1, 3))[:, 4:]
    expected[2, 20:, 20:] = masks[2, 0, :20, :20]
    torch.testing.assert_close(values[0, 5:33, 3:31], expected[0, 5:33, 3:31])
    torch.testing.assert_close(values, expected)
