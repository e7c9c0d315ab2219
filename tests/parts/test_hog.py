"""Histograms of oriented gradients: scikit-image's where definitions match, by hand where they do not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.feature import _hoghistogram

from selfsup.parts.hog import BINS, drawn, hog, hog_of_tokens
from selfsup.parts.patch import patchify


@pytest.mark.parametrize("cell", [4, 8])
def test_histograms_are_scikit_images(cell: int) -> None:
    """Its histogram of a cell, from SciPy's Sobel filter: its own gradients have no smoothing, its blocks overlap."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 24)
    ours = hog(images, cell)
    rows, columns = 16 // cell, 24 // cell
    assert ours.shape == (2, 3 * BINS, rows, columns)
    for picture, result in zip(images.double().numpy(), ours.unflatten(1, (3, BINS)), strict=True):
        for channel, cells in zip(picture, result, strict=True):
            down, right = (ndimage.sobel(channel, axis=axis, mode="mirror") for axis in (0, 1))
            expected = np.zeros((rows, columns, BINS))
            _hoghistogram.hog_histograms(down, right, cell, cell, 24, 16, columns, rows, BINS, expected)
            lengths = np.linalg.norm(expected, axis=2, keepdims=True)
            np.testing.assert_allclose(cells.permute(1, 2, 0), expected / lengths, atol=1e-5)


def test_a_ramp_has_one_orientation_by_hand() -> None:
    """Across columns a right angle, the middle of nine bins; down the rows none, the first. Flat images have none."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    for image, number in ((ramp, 4), (-ramp, 4), (ramp.mT, 0), (-ramp.mT, 0)):
        assert hog(image, 8).flatten().tolist() == F.one_hot(torch.tensor(number), BINS).float().tolist()
    assert hog(torch.ones(1, 1, 8, 8), 8).flatten().tolist() == [0.0] * BINS


def test_patches_have_the_histograms_of_their_cells() -> None:
    """Patches of 2 x 2 cells of 9 bins of 3 channels, of the whole image: neighbors count at a patch's border."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    tokens = patchify(images, 16)
    target = hog_of_tokens(tokens, patch=16, cell=8)
    assert target.shape == (2, 4, 108)
    cells = hog(images, 8)
    patch = target[1, 2].view(2, 2, 27)  # row 1, column 0 of the patches
    assert patch[0, 1].equal(cells[1, :, 2, 1])
    assert patch[1, 0].equal(cells[1, :, 3, 0])


def test_edges_are_drawn_across_their_gradients() -> None:
    """A gradient along the columns is an upright edge, two pixels wide in a cell of four."""
    histograms = torch.zeros(1, 2, 4 * 3 * BINS).view(1, 2, 2, 2, 3, BINS)
    histograms[0, 1, 0, 1, 2, 4] = 1.0  # of the second patch the upper right cell, its third channel
    picture = drawn(histograms.flatten(2), patch=8, cell=4).view(1, 2, 8, 8, 3)
    expected = torch.zeros_like(picture)
    expected[0, 1, :4, 5:7, 2] = 0.5
    torch.testing.assert_close(picture, expected)
