"""Colors of lines are visible on light and dark pages, and differ for the color-blind."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from selfsup.sweeps.report.plots import AMOUNTS, BLUE, INK, KINDS, RED

WHITE, DARK = "#ffffff", "#14171b"  # the page's papers
SIGHT = {  # Machado, Oliveira and Fernandes (2009), at full severity; on linear RGB
    "trichromat": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

Color = str | tuple[float, ...]


def linear(color: Color) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: Color, other: Color) -> float:
    """Return the ratio of WCAG 2."""
    low, high = sorted(float(linear(color) @ XYZ[1]) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(color: Color, sight: str) -> np.ndarray:
    """-> (L, a, b) of CIELAB as it is seen."""
    xyz = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear(color), 0, 1) / XYZ.sum(1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def scale(number: int) -> list[tuple[float, ...]]:
    return [tuple(map(float, AMOUNTS(place))) for place in np.linspace(0, 1, number)]


def test_lines_are_visible_on_light_and_on_dark_pages() -> None:
    for color in (*KINDS, BLUE, RED, INK, *scale(12)):
        assert contrast(color, WHITE) >= 3
        assert contrast(color, DARK) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_colors_differ_whoever_looks(sight: str) -> None:
    for colors, least in ((KINDS, 20), (scale(3), 20), ((BLUE, RED, INK), 25)):
        distances = [np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in combinations(colors, 2)]
        assert min(distances) >= least


def test_the_scale_of_numbers_becomes_lighter_from_end_to_end() -> None:
    assert (np.diff([lab(color, "trichromat")[0] for color in scale(12)]) > 0).all()


def test_red_is_red() -> None:
    red, green, blue = to_rgb(RED)
    assert red > 4 * max(green, blue)
