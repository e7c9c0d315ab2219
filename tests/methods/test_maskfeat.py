"""MaskFeat against the paper's definition: gradients counted pixel by pixel, features by timm's own modules."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.masks import FilledBlockMask
from selfsup.method import load
from selfsup.parts.patch import unpatchify

MaskFeat = load("maskfeat")


def histograms(image: NDArray[np.float64], cell: int) -> NDArray[np.float64]:
    """(H, W) -> (h, w, 9): Sobel's gradients, counted by orientation, each cell's histogram of length 1."""
    padded, (height, width) = np.pad(image, 1, mode="reflect"), image.shape
    counts = np.zeros((height // cell, width // cell, 9))
    for row in range(height):
        for column in range(width):
            around = padded[row : row + 3, column : column + 3]
            right = around[:, 0] @ [1, 2, 1] - around[:, 2] @ [1, 2, 1]
            down = around[0] @ [1, 2, 1] - around[2] @ [1, 2, 1]
            number = math.floor(math.atan2(right, down) / math.pi * 9) % 9
            counts[row // cell, column // cell, number] += math.hypot(right, down)
    return counts / np.linalg.norm(counts, axis=2, keepdims=True)


def test_the_loss_is_the_papers_in_value_and_gradient(setting) -> None:
    method, batch = setting("maskfeat", double=True, samples=2)
    tokens, removed = batch.views[0].value, batch.views[0].mask.removed
    pixels = unpatchify(tokens.value, grid=(4, 4), patch=4)
    cells = np.array([[histograms(channel, 2) for channel in image] for image in pixels.numpy()])  # (2, 3, 8, 8, 9)
    target = cells.reshape(2, 3, 4, 2, 4, 2, 9).transpose(0, 2, 4, 3, 5, 1, 6).reshape(2, 16, 108)
    trunk = method.backbone.trunk
    embedded = torch.where(removed[..., None], method.mask_token, trunk.patch_embed(pixels))
    hidden = trunk.norm(trunk.blocks(trunk._pos_embed(embedded)))[:, 1:]
    expected = (method.head(hidden) - torch.from_numpy(target))[removed].square().mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_a_patch_of_16_pixels_has_108_values_and_its_views_are_the_papers() -> None:
    """Section 3.2: 2 x 2 cells of 9 bins of 3 channels. Blocks over 40 % of 196 patches."""
    [crop] = MaskFeat.views(MaskFeat.Hyper()).specs
    assert crop.mask == FilledBlockMask(0.4)
    assert crop.mask.typical((14, 14)) == (118, 78)
    assert (crop.scale, crop.flip, crop.jitter) == ((0.5, 1.0), 0.5, 0.0)


def test_hidden_pixels_stay_hidden_but_for_the_target(setting) -> None:
    method, batch = setting("maskfeat")
    painted = method.reconstruct(batch)
    batch.views[0].value.value.masked_fill_(batch.views[0].mask.removed[..., None], 1e3)
    assert method.reconstruct(batch).equal(painted)
