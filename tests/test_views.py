"""The random crop against torchvision's own code, given the same draws, and against its distribution."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop, transforms

from selfsup.views import CROP_DRAWS, Center, Crop, Views, boxes, central_boxes, flips

ALMOST_ONE = 1 - 2**-24  # the largest draw


def draws(n, seed=0):
    return np.random.default_rng(seed).random((n, CROP_DRAWS), dtype=np.float32)


class Scripted:
    """Stands in for `torch` inside torchvision, and hands it our draws in the order in which it asks."""

    def __init__(self, row):
        attempts = (len(row) - 3) // 2
        self.shapes = iter(np.stack([row[:attempts], row[attempts : 2 * attempts]], axis=1).ravel().tolist())
        self.corners = iter(row[-3:-1].tolist())

    def tensor(self, values):
        return np.array(values)

    def log(self, values):
        return np.log(values)

    def exp(self, value):
        return np.float64(math.exp(value))

    def empty(self, _):
        return self

    def uniform_(self, low, high):
        return np.float64(low + (high - low) * next(self.shapes))

    def randint(self, low, high, size):  # noqa: ARG002 (torch.randint has it)
        return np.int64(low + math.floor((high - low) * next(self.corners)))


@pytest.mark.parametrize(
    "crop",
    [Crop(), Crop(scale=(0.2, 1.0)), Crop(scale=(0.05, 0.3)), Crop(scale=(0.8, 1.0)), Crop(ratio=(0.2, 0.4))],
    ids=str,
)
def test_boxes_are_torchvisions_for_the_same_draws(crop, monkeypatch):
    n = 400
    height, width = np.random.default_rng(1).integers(5, 300, (2, n))
    expected = []
    for row, h, w in zip(draws(n), height, width, strict=True):
        monkeypatch.setattr(transforms, "torch", Scripted(row))
        image = torch.empty(3, int(h), int(w))
        expected.append(RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio)))
    np.testing.assert_array_equal(boxes(crop, height, width, draws(n)), expected)


@pytest.mark.parametrize(("height", "width", "scale"), [(60, 100, (0.08, 1.0)), (40, 200, (0.3, 1.0))])
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    n = 3000
    torch.manual_seed(0)
    image, crop = torch.empty(3, height, width), Crop(scale=scale)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(crop.ratio)) for _ in range(n)])
    ours = boxes(crop, np.full(n, height), np.full(n, width), draws(n))
    for name, measure in {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "right": lambda b: b[:, 1] + b[:, 3],
    }.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01, name


def test_a_crop_by_hand():
    # A quarter of 40 x 60 is 600: 24.49 a side. 17 places from top to bottom, 37 from left to right.
    crop, size = Crop(scale=(0.25, 0.25), ratio=(1.0, 1.0)), (np.array([40]), np.array([60]))
    np.testing.assert_array_equal(boxes(crop, *size, np.full((1, CROP_DRAWS), 0.5)), [[8, 18, 24, 24]])
    np.testing.assert_array_equal(boxes(crop, *size, np.full((1, CROP_DRAWS), ALMOST_ONE)), [[16, 36, 24, 24]])


def test_a_central_square_is_a_share_of_the_shorter_side():
    """224 / 256 of 375 pixels are 328.125: 23.5 are left on either side, and 86 of 500; one pixel stays."""
    center, size = Center(share=224 / 256, rounded=True), (np.array([375, 500, 1]), np.array([500, 375, 9]))
    expected = [[23, 86, 328, 328], [86, 23, 328, 328], [0, 4, 1, 1]]
    np.testing.assert_array_equal(central_boxes(center, *size), expected)
    exact = [[23.4375, 85.9375, 328.125, 328.125], [85.9375, 23.4375, 328.125, 328.125], [0, 4, 1, 1]]
    np.testing.assert_array_equal(central_boxes(Center(share=224 / 256), *size), exact)


def test_a_square_of_a_fixed_share_is_anywhere():
    """0.875 of 40 x 80 pixels is a square of 35, on one of 6 rows and 46 columns."""
    square = Crop(share=0.875)
    top, left, height, width = boxes(square, np.full(3000, 40), np.full(3000, 80), draws(3000)).T
    assert set(height) == set(width) == {35.0}
    assert sorted(set(top)) == list(range(6))
    assert sorted(set(left)) == list(range(46))
    assert abs(np.mean(left) - 22.5) < 4 * math.sqrt((46**2 - 1) / 12 / 3000)
    assert square.geometry != Crop().geometry


def test_a_shape_that_never_fits_falls_back_to_the_center():
    crop = Crop(scale=(2.0, 2.0))
    height, width = np.array([10, 100, 101, 100]), np.array([100, 10, 10, 110])
    wide, tall, odd, whole = [0, 43, 10, 13], [43, 0, 13, 10], [44, 0, 13, 10], [0, 0, 100, 110]
    np.testing.assert_array_equal(boxes(crop, height, width, draws(4)), [wide, tall, odd, whole])


def test_every_sample_is_cropped_on_its_own():
    height, width = np.array([30, 200, 64]), np.array([90, 50, 64])
    together = boxes(Crop(), height, width, draws(3))
    for i in range(3):
        one = slice(i, i + 1)
        np.testing.assert_array_equal(boxes(Crop(), height[one], width[one], draws(3)[one]), together[one])


def test_a_flip_takes_the_last_draw_and_nothing_else_does():
    at = draws(1000)
    assert not flips(Crop(flip=0.0), at).any()
    assert flips(Crop(flip=1.0), at).all()
    assert abs(flips(Crop(flip=0.3), at).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 1000)
    size = np.full(1000, 64), np.full(1000, 48)
    assert np.array_equal(flips(Center(flip=0.3), at), flips(Crop(flip=0.3), at))
    before = boxes(Crop(), *size, at)
    at[:, -1] = 1 - at[:, -1]
    np.testing.assert_array_equal(boxes(Crop(), *size, at), before)


def test_views_are_read_under_their_first_name_with_a_remark():
    views = Views((Crop(),))
    with pytest.deprecated_call(match="Views.crops is called Views.specs now"):
        assert views.crops is views.specs
