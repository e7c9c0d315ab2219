"""Corruptions against other routes to the same numbers: torch, skimage, Pillow, and the statistics of the noise."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import color, data

from selfsup.parts.corruptions import KINDS, SEVERITIES, corrupted, crystals, disk, moved, plasma, zoomed

Pixels = NDArray[np.uint8]
SEVERE = range(1, SEVERITIES + 1)
RANDOM = ("snow", "frost", "fog", "elastic_transform")  # each severity draws another layer


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return np.asarray(Image.fromarray(data.astronaut()).resize((224, 224)))


def distances(photo: Pixels, kind: str) -> list[float]:
    versions = [corrupted(photo, kind, severity, number=0) for severity in SEVERE]
    assert all(version.shape == photo.shape and version.dtype == np.uint8 for version in versions)
    return [float(((version.astype(float) - photo) ** 2).mean()) for version in versions]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*RANDOM, "glass_blur")])
def test_a_higher_severity_is_farther_from_the_image(photo: Pixels, kind: str) -> None:
    grown = distances(photo, kind)
    assert grown[0] > 0
    assert grown == sorted(set(grown))


def test_layers_of_weather_and_glass_are_told_from_the_image(photo: Pixels) -> None:
    """Their severities trade one setting for another: the last is farther than the first, and no two are the same."""
    for kind in ("snow", "fog", "glass_blur"):
        grown = distances(photo, kind)
        assert len(set(grown)) == SEVERITIES
        assert grown[-1] > grown[0] > 0


def test_random_numbers_are_those_of_image_kind_severity_and_seed() -> None:
    gray = np.full((16, 16, 3), 128, np.uint8)
    first = corrupted(gray, "gaussian_noise", 1, number=7)
    np.testing.assert_array_equal(first, corrupted(gray, "gaussian_noise", 1, number=7))
    others = [("gaussian_noise", 1, 8, 0), ("gaussian_noise", 2, 7, 0), ("gaussian_noise", 1, 7, 1)]
    for kind, severity, number, seed in others:
        again = corrupted(gray, kind, severity, number=number, seed=seed)
        assert np.corrcoef(first.ravel(), again.ravel())[0, 1] < 0.2


def test_noise_has_the_moments_of_its_distribution() -> None:
    """On gray 102 = 0.4: normal of each deviation; Poisson of variance 0.4 / c; salt and pepper, half of each."""
    gray = np.full((224, 224, 3), 102, np.uint8)
    for severity, std, photons, share in ((1, 0.08, 60, 0.03), (2, 0.12, 25, 0.06)):
        noisy = {kind: corrupted(gray, f"{kind}_noise", severity, number=1) / 255 for kind in ("gaussian", "shot")}
        assert noisy["gaussian"].mean() == pytest.approx(0.4 - 0.5 / 255, abs=2e-3)  # pixels are cut to integers
        assert noisy["gaussian"].std() == pytest.approx(std, rel=0.02)
        assert noisy["shot"].mean() == pytest.approx(0.4 - 0.5 / 255, abs=2e-3)
        assert noisy["shot"].std() == pytest.approx(math.sqrt(0.4 / photons), rel=0.02)
        hit = corrupted(gray, "impulse_noise", severity, number=1)
        assert [(hit == value).mean() for value in (0, 255)] == pytest.approx([share / 2, share / 2], rel=0.1)
        assert (hit == 102).mean() == pytest.approx(1 - share, rel=0.01)


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 3, 0.1), (5, 10, 0.5)])
def test_defocus_is_a_convolution_with_a_disk(photo: Pixels, severity: int, radius: int, sigma: float) -> None:
    """The kernel: the share of the disk's points, blurred by a Gaussian along both axes, mirrored at its edges."""
    half = max(radius, 8)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    flat = torch.tensor((x**2 + y**2 <= radius**2).astype(float))
    tap = torch.exp(-(torch.arange(-2.0, 3).double() ** 2) / (2 * sigma**2))
    tap[[0, 4]] *= radius > 8
    blur = torch.outer(tap, tap) / tap.sum() ** 2
    around = F.pad(flat[None, None], (2,) * 4, mode="reflect")
    kernel = F.conv2d(around, blur[None, None])[0, 0] / flat.sum()
    image = torch.tensor(photo / 255).movedim(-1, 0)[:, None]
    expected = F.conv2d(F.pad(image, (half,) * 4, mode="reflect"), kernel[None, None])[:, 0].movedim(0, -1)
    found = corrupted(photo, "defocus_blur", severity, number=0)
    assert np.abs(found - 255 * expected.clamp(0, 1).numpy()).max() < 1.001
    assert disk(6, 0.5).sum() == pytest.approx(1)


def test_motion_blur_spreads_a_point_along_its_angle() -> None:
    """A point of light at 45 degrees: steps of (0, 0), (1, 1), (1, 1), (2, 2) pixels ... by half a Gaussian."""
    x = np.zeros((41, 41, 1))
    x[20, 20] = 1
    found = moved(x, 3, 2, 45)[..., 0]
    weights = np.exp(-(np.arange(7) ** 2) / 8)
    steps = [math.ceil(step / math.sqrt(2) - 0.5) for step in range(7)]
    expected = np.zeros((41, 41))
    for weight, step in zip(weights / weights.sum(), steps, strict=True):
        expected[20 - step, 20 - step] += weight
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(moved(np.full((9, 9, 3), 0.3), 10, 3, -30), 0.3)


def test_zoom_keeps_the_middle_and_its_blur_a_flat_image() -> None:
    ramp = np.linspace(0, 1, 101)[:, None, None] * np.ones((1, 101, 3))
    np.testing.assert_allclose(zoomed(ramp, 1.0), ramp)
    twice = zoomed(ramp, 2.0)
    assert twice.shape == ramp.shape
    assert twice[50, 50, 0] == pytest.approx(0.5, abs=0.01)
    assert np.diff(twice[30:70, 0, 0]).mean() == pytest.approx(0.005, rel=0.03)
    gray = np.full((64, 64, 3), 77, np.uint8)
    assert np.abs(corrupted(gray, "zoom_blur", 5, number=0).astype(int) - 77).max() <= 1


def test_brightness_adds_to_the_value_of_hsv(photo: Pixels) -> None:
    for severity in SEVERE:
        hsv = color.rgb2hsv(photo)
        hsv[..., 2] = np.clip(hsv[..., 2] + severity / 10, 0, 1)
        expected = 255 * color.hsv2rgb(hsv)
        assert np.abs(corrupted(photo, "brightness", severity, number=0) - expected).max() < 1.001


def test_contrast_pixels_and_jpeg_are_pillows(photo: Pixels) -> None:
    image = Image.fromarray(photo)
    for severity, share in enumerate((0.4, 0.3, 0.2, 0.1, 0.05), 1):
        mean = photo.reshape(-1, 3).mean(0)
        expected = mean + share * (photo - mean)
        assert np.abs(corrupted(photo, "contrast", severity, number=0) - expected).max() < 1.001
    for severity, side in enumerate((134, 112, 89, 67, 56), 1):
        small = image.resize((side, side), Image.Resampling.BOX).resize((224, 224), Image.Resampling.BOX)
        np.testing.assert_array_equal(corrupted(photo, "pixelate", severity, number=0), np.asarray(small))
    for severity, quality in enumerate((25, 18, 15, 10, 7), 1):
        image.save(file := io.BytesIO(), "JPEG", quality=quality)
        np.testing.assert_array_equal(corrupted(photo, "jpeg_compression", severity, number=0), Image.open(file))


def test_glass_moves_pixels_no_farther_than_it_reaches() -> None:
    """A dark half beside a light one: seven pixels off the edge, two steps of at most two and two blurs leave all."""
    x = np.zeros((224, 224, 3), np.uint8)
    x[:, 112:] = 200
    found = corrupted(x, "glass_blur", 2, number=0)
    assert set(np.unique(found[:, :100])) == {0}
    assert set(np.unique(found[:, 124:])) <= {199, 200}
    smooth = gaussian_filter(x / 255, (0.9, 0.9, 0))
    assert np.abs(found[:, 105:119] / 255 - smooth[:, 105:119]).max() > 0.2


def test_elastic_shifts_are_as_long_as_the_paper_has_them() -> None:
    """A field of horizontal positions, shifted: its deviation is c0 of a blurred uniform noise, mild at severity 3."""
    x = np.repeat(np.tile(np.arange(224, dtype=np.uint8)[None, :, None], (224, 1, 1)), 3, axis=2)
    middle = np.s_[60:164, 60:164]
    lengths = []
    for severity, share in ((3, 0.05), (4, 0.07), (5, 0.12)):
        shifts = [(corrupted(x, "elastic_transform", severity, number=number) - 1.0 * x)[middle] for number in range(4)]
        rough = [shift - gaussian_filter(shift, (8, 8, 0)) for shift in shifts]
        lengths.append(np.std(rough) / share)
    assert lengths == pytest.approx([lengths[0]] * 3, rel=0.25)


def test_clouds_fill_their_range_and_crystals_have_frosts_colors() -> None:
    draw = np.random.default_rng(0)
    for side in (224, 256, 48):
        cloud = plasma(side, 2, draw)
        assert cloud.shape == (side, side)
        assert cloud.min() >= 0
        assert cloud.max() <= 1
    cloud = plasma(256, 2, draw)
    assert (cloud.min(), cloud.max()) == (0, 1)
    frost = np.stack([crystals(64, draw) for _ in range(30)])
    np.testing.assert_allclose(255 * frost.mean((0, 1, 2)), [146, 167, 179], atol=15)
    assert 255 * frost.std((1, 2)).mean() == pytest.approx(26.5, rel=0.01)
    rough, smooth = (np.abs(np.diff(plasma(256, decay, np.random.default_rng(1)))).mean() for decay in (1.4, 2))
    assert rough > smooth


def test_fog_and_frost_mix_as_the_paper_has_it() -> None:
    """White under fog: (1 + 1.5 f) / 2.5 with f in [0, 1]. Black under frost of severity 5: 0.75 of the crystals."""
    white = np.full((224, 224, 3), 255, np.uint8)
    fog = corrupted(white, "fog", 1, number=0) / 255
    assert fog.min() == pytest.approx(1 / 2.5, abs=0.02)
    assert fog.max() <= 1
    frosts = [corrupted(0 * white, "frost", 5, number=number) for number in range(10)]
    assert np.mean(frosts) == pytest.approx(0.75 * np.mean([146, 167, 179]), rel=0.15)


def test_lengths_grow_with_the_image() -> None:
    """A point of light, twice as large in an image of twice the side, is blurred to four times the area."""
    small, large = np.zeros((112, 112, 3), np.uint8), np.zeros((224, 224, 3), np.uint8)
    small[56:58, 56:58] = large[112:116, 112:116] = 255
    areas = [(corrupted(image, "defocus_blur", 5, number=0)[..., 0] > 0).sum() for image in (small, large)]
    assert areas[1] / areas[0] == pytest.approx(4, rel=0.25)
