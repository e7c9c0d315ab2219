"""The fifteen corruptions of ImageNet-C, each at five severities, of square RGB images.

Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv 1903.12261, with the parameters of the authors' make_imagenet_c.py. Glass blur copies a pixel from
nearby, as their loop does, whose two pixels are views of one array, where the paper exchanges them. Deviations: frost
is drawn, with the colors and contrast of their photographs, which are not at hand; images are not stored as JPEGs of
quality 85 afterwards; lengths in pixels are those of images of 224 pixels a side, and grow with others.
"""

import io
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224  # pixels a side of the images that lengths are of
SEVERITIES = 5
GRAY = np.array([0.299, 0.587, 0.114])  # of red, green and blue
FROST_COLOR, FROST_SPREAD = np.array([0.573, 0.654, 0.702]), 0.104  # mean and deviation of the authors' five pictures
NEEDLES = 8  # directions of crystals

Values = NDArray[Any]  # (S, S, 3) floats in [0, 1]; perhaps beyond, as a result
Draw = np.random.Generator


class Corruption(NamedTuple):
    """A kind of corruption. change: image, random numbers and the settings of a severity -> the image, changed."""

    change: Callable[..., Values]
    settings: tuple[tuple[float, ...], ...]


def corrupted(image: NDArray[np.uint8], kind: str, severity: int, *, number: int, seed: int = 0) -> NDArray[np.uint8]:
    """(S, S, 3) -> (S, S, 3): corrupted by a kind at a severity, 1 to 5; a pure function of these, number and seed.

    number: of the image, whose random numbers differ from those of others.
    """
    change, settings = KINDS[kind]
    counter = np.random.SeedSequence((seed, number, list(KINDS).index(kind), severity))
    draw = np.random.Generator(np.random.Philox(counter))
    value = change(image / 255, draw, *settings[severity - 1])
    return (np.clip(value, 0, 1) * 255 + 1e-4).astype(np.uint8)


def _gaussian_noise(x: Values, draw: Draw, std: float) -> Values:
    return x + draw.normal(scale=std, size=x.shape)


def _shot_noise(x: Values, draw: Draw, photons: float) -> Values:
    return draw.poisson(x * photons) / photons


def _impulse_noise(x: Values, draw: Draw, share: float) -> Values:
    is_hit, is_white = draw.random(x.shape) < share, draw.random(x.shape) < 0.5
    return np.where(is_hit, is_white, x)


def _defocus_blur(x: Values, draw: Draw, radius: float, sigma: float) -> Values:  # noqa: ARG001
    from scipy.signal import fftconvolve

    kernel = disk(radius * _scale(x), sigma)
    padded = np.pad(x, [(len(kernel) // 2,) * 2] * 2 + [(0, 0)], mode="reflect")
    blurred: Values = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


def disk(radius: float, sigma: float) -> NDArray[np.float64]:
    """-> (2R + 1, 2R + 1): a disk of sum 1, its edge blurred by a Gaussian of three taps, or of five if it is large"""
    from scipy.ndimage import correlate1d

    line = np.arange(-(half := max(8, math.ceil(radius))), half + 1)
    flat = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    taps = np.exp(-((np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        flat = correlate1d(flat, taps / taps.sum(), axis=axis, mode="mirror")
    kernel: NDArray[np.float64] = flat / (line[:, None] ** 2 + line**2 <= radius**2).sum()
    return kernel


def _glass_blur(x: Values, draw: Draw, sigma: float, reach: int, rounds: int) -> Values:
    side, reach = len(x), max(1, round(reach * _scale(x)))
    line = np.arange(side - reach, reach, -1)
    source, pixels = list(range(side**2)), (line[:, None] * side + line).ravel()
    for _ in range(rounds):
        across, down = draw.integers(-reach, reach, size=(2, len(pixels)))
        for pixel, other in zip(pixels.tolist(), (pixels + down * side + across).tolist(), strict=True):
            source[pixel] = source[other]
    blurred = np.floor(_blurred(x, sigma) * 255) / 255
    return _blurred(blurred.reshape(side**2, 3)[source].reshape(x.shape), sigma)


def _blurred(x: Values, sigma: float) -> Values:
    from scipy.ndimage import gaussian_filter

    value: Values = gaussian_filter(x, (sigma * _scale(x),) * 2 + (0,), mode="nearest")
    return value


def _motion_blur(x: Values, draw: Draw, radius: float, sigma: float) -> Values:
    return moved(x, radius * _scale(x), sigma * _scale(x), draw.uniform(-45, 45))


def moved(x: Values, radius: float, sigma: float, angle: float) -> Values:
    """(S, S, C) -> (S, S, C): the mean of what lies behind each pixel, as ImageMagick's motion blur has it

    angle: in degrees, clockwise from the right. Weights are half a Gaussian of 2 radius + 1 pixels.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    turn = math.radians(angle)
    places = np.ceil(steps[:, None] * [math.sin(turn), math.cos(turn)] - 0.5).astype(int)
    pad, side = len(steps), len(x)
    padded, total = np.pad(x, [(pad, pad)] * 2 + [(0, 0)], mode="edge"), np.zeros_like(x)
    for weight, (down, across) in zip(weights / weights.sum(), pad + places, strict=True):
        total += weight * padded[down : down + side, across : across + side]
    return total


def _zoom_blur(x: Values, draw: Draw, stop: float, step: float) -> Values:  # noqa: ARG001
    factors = np.arange(1, stop, step)
    total: Values = x + sum(zoomed(x, factor) for factor in factors)
    return total / (len(factors) + 1)


def zoomed(x: Values, factor: float) -> Values:
    """(S, S, C) -> (S, S, C): the middle of the image, enlarged"""
    from scipy.ndimage import zoom

    side = len(x)
    start = (side - (size := math.ceil(side / factor))) // 2
    middle: Values = zoom(x[start : start + size, start : start + size], (factor, factor, 1), order=1)
    trim = (len(middle) - side) // 2
    return middle[trim : trim + side, trim : trim + side]


def _snow(
    x: Values, draw: Draw, mean: float, std: float, zoom: float, least: float, radius: float, sigma: float, keep: float
) -> Values:
    flakes = zoomed(draw.normal(mean, std, size=(*x.shape[:2], 1)), zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    layer = moved(flakes, radius * _scale(x), sigma * _scale(x), draw.uniform(-135, -45))
    white = np.maximum(x, (x @ GRAY)[..., None] * 1.5 + 0.5)
    snowy: Values = keep * x + (1 - keep) * white + layer + np.rot90(layer, 2)
    return snowy


def _frost(x: Values, draw: Draw, keep: float, cover: float) -> Values:
    return keep * x + cover * crystals(len(x), draw)


def crystals(side: int, draw: Draw) -> Values:
    """-> (S, S, 3): needles of many directions on a cloud, in the colors of frost on a window"""
    needles = sum(
        moved(draw.normal(size=(side, side, 1)), 10, 5, angle) ** 3 for angle in draw.uniform(0, 360, size=NEEDLES)
    )
    cloud = plasma(side, 1.8, draw)[..., None]
    texture = needles / np.std(needles) + cloud / np.std(cloud)
    light = draw.uniform(-0.2, 0.2)  # how bright the window is
    frost: Values = FROST_COLOR + light + FROST_SPREAD * (texture - texture.mean()) / np.std(texture)
    return frost


def _fog(x: Values, draw: Draw, thickness: float, decay: float) -> Values:
    brightest = x.max()
    foggy: Values = (x + thickness * plasma(len(x), decay, draw)[..., None]) * brightest / (brightest + thickness)
    return foggy


def plasma(side: int, decay: float, draw: Draw) -> NDArray[np.float64]:
    """-> (S, S) in [0, 1]: a corner of a cloud by the diamond-square algorithm, its steps falling by `decay`"""
    size = 2 ** math.ceil(math.log2(side))
    cloud, step, most = np.zeros((size, size)), size, 100.0

    def filled(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + most * draw.uniform(-most, most, total.shape)

    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        rows = corners + np.roll(corners, -1, 0)
        cloud[half::step, half::step] = filled(rows + np.roll(rows, -1, 1))
        middles = cloud[half::step, half::step]
        for axis, place in ((0, np.s_[::step, half::step]), (1, np.s_[half::step, ::step])):
            across = corners + np.roll(corners, -1, 1 - axis)
            cloud[place] = filled(middles + np.roll(middles, 1, axis) + across)
        step, most = half, most / decay
    cloud -= cloud.min()
    corner: NDArray[np.float64] = (cloud / cloud.max())[:side, :side]
    return corner


def _brightness(x: Values, draw: Draw, more: float) -> Values:  # noqa: ARG001
    """Add to the value of HSV: hue and saturation stay, so colors grow by one factor; black has none and turns gray."""
    value = x.max(2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    colors: Values = np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)
    return colors


def _contrast(x: Values, draw: Draw, share: float) -> Values:  # noqa: ARG001
    mean = x.mean((0, 1))
    flatter: Values = (x - mean) * share + mean
    return flatter


def _elastic_transform(x: Values, draw: Draw, length: float, sigma: float, shift: float) -> Values:
    from scipy.ndimage import map_coordinates

    side, size = len(x), len(x) // 3
    center, points = side // 2, np.array([[size, size], [size, -size], [-size, -size]])
    turned = center + points + draw.uniform(-shift * side, shift * side, size=(3, 2))
    known = np.c_[turned, np.ones(3)]
    back = np.linalg.solve(known, center + points)  # (3, 2): x, y, 1 of the result -> x, y of the image
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)  # (S, S, 2): x, y
    places = grid @ back[:2] + back[2]
    smooth, noise = _smoother(side, sigma * side), draw.uniform(-1, 1, size=(2, side, side))
    bent = grid + length * side * np.moveaxis(smooth @ noise @ smooth.T, 0, -1)
    for source, mode in ((places, "mirror"), (bent, "reflect")):
        across, down = np.moveaxis(source, -1, 0)
        x = np.stack(
            [map_coordinates(color, (down, across), order=1, mode=mode) for color in np.moveaxis(x, -1, 0)], -1
        )
    return x


@lru_cache(maxsize=8)
def _smoother(side: int, sigma: float) -> NDArray[np.float64]:
    """-> (S, S): the matrix of a Gaussian blur along one axis, three deviations wide"""
    from scipy.ndimage import gaussian_filter1d

    matrix: NDArray[np.float64] = gaussian_filter1d(np.eye(side), sigma, axis=0, mode="reflect", truncate=3)
    return matrix


def _pixelate(x: Values, draw: Draw, share: float) -> Values:  # noqa: ARG001
    side = len(x)
    small = _picture(x).resize((int(side * share),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX)) / 255


def _jpeg_compression(x: Values, draw: Draw, quality: int) -> Values:  # noqa: ARG001
    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


def _picture(x: Values) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


def _scale(x: Values) -> float:
    return len(x) / SIDE


def _each(*values: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) for value in values)


E = 244 / 224  # what the authors wrote for the side of the image
KINDS = {
    "gaussian_noise": Corruption(_gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(_shot_noise, _each(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(_impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": Corruption(_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": Corruption(_glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": Corruption(_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": Corruption(_zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": Corruption(
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(_frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": Corruption(_fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": Corruption(_brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(_contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        _elastic_transform,
        (
            (2 * E, 0.7 * E, 0.1 * E),
            (2 * E, 0.08 * E, 0.2 * E),
            *((share * E, 0.01 * E, 0.02 * E) for share in (0.05, 0.07, 0.12)),
        ),
    ),
    "pixelate": Corruption(_pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Corruption(_jpeg_compression, _each(25, 18, 15, 10, 7)),
}
