"""L*a*b* as scikit-image has it, there and back; bins of colors, and the nearest of them."""

import warnings

import numpy as np
import torch
from skimage.color import lab2rgb, rgb2lab

from selfsup.parts.color import bins, near_bins, to_lab, to_rgb
from selfsup.parts.lab_images import LabImages


def test_lab_is_that_of_scikit_image() -> None:
    rgb = torch.rand(2, 3, 20, 20, dtype=torch.float64)
    rgb[0, :, 0] = torch.linspace(0, 0.05, 20)  # dark, where the curves are straight
    expected = torch.from_numpy(rgb2lab(rgb.numpy(), channel_axis=1))
    torch.testing.assert_close(to_lab(rgb), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(to_rgb(expected), rgb, rtol=0, atol=1e-6)


def test_colors_that_srgb_lacks_are_cut_off_as_there() -> None:
    lab = torch.tensor([[50.0, 90, -100], [95, -80, 20], [5, 40, 60], [99.9, 0, 0]], dtype=torch.float64).T[
        None, :, None
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.from_numpy(lab2rgb(lab.numpy(), channel_axis=1))
    torch.testing.assert_close(to_rgb(lab), expected, rtol=0, atol=1e-9)


def test_every_color_has_its_bin() -> None:
    centers = np.array(bins())
    assert len(centers) == len({tuple(row) for row in bins()}) == 261
    colors = rgb2lab(np.random.default_rng(0).random((1, 5000, 3)))[0, :, 1:]
    assert np.abs(colors[:, None] - centers).max(axis=2).min(axis=1).max() <= 5.1  # the lattice is not all colors
    assert (centers % 10 == 0).all()


def test_near_bins_are_the_nearest_by_a_gaussian() -> None:
    ab, centers = 60 * torch.randn(4, 3, 2, dtype=torch.float64), torch.tensor(bins(), dtype=torch.float64)
    nearest, share = near_bins(ab, centers, 5, 5.0)
    for color, own, weights in zip(ab.view(-1, 2).numpy(), nearest.view(-1, 5), share.view(-1, 5), strict=True):
        apart = np.hypot(*(color - centers.numpy()).T)
        np.testing.assert_array_equal(own, np.argsort(apart)[:5])
        gaussian = np.exp(-(np.sort(apart)[:5] ** 2 - apart.min() ** 2) / 50)
        np.testing.assert_allclose(weights, gaussian / gaussian.sum(), rtol=1e-6)


def test_halves_of_an_image_keep_what_they_are_of() -> None:
    images = LabImages((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    pixels = torch.rand(1, 3, 4, 4) * 0.2 + 0.4
    lab = images.lab((pixels - images.mean) / images.std)
    torch.testing.assert_close(lab, to_lab(pixels), rtol=1e-4, atol=1e-3)
    gray, colors = images.lab(images.gray(lab)), images.lab(images.colors(lab))
    torch.testing.assert_close(gray[:, 0], lab[:, 0], rtol=0, atol=0.02)
    assert gray[:, 1:].abs().max() < 0.02
    torch.testing.assert_close(colors[:, 1:], lab[:, 1:], rtol=0, atol=0.1)
    torch.testing.assert_close(colors[:, 0], torch.full((1, 4, 4), 50.0), rtol=0, atol=0.1)
