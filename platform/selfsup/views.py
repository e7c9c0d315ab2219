"""Views as data, and the geometry of crops. No torch: data tasks run this.

Shapes: n samples of one batch.
"""

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from selfsup.masks import MaskRule

ATTEMPTS = 10  # shapes that a random crop tries before it falls back to the center, as torchvision
CROP_DRAWS = 2 * ATTEMPTS + 3  # per attempt an area and an aspect ratio; then top, left, flip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """A view of a sample, as an objective asks for it; a subclass for each modality.

    channels: values of a point; None: as many as the data has. mask: how the tokens are drawn that the encoder does not
    see. of: the number of an earlier view, whose part of the sample this one shows, too.
    """

    modality: ClassVar[str]
    channels: ClassVar[int | None] = None
    mask: "MaskRule | None" = None
    of: int | None = None

    @property
    def num_parts(self) -> int:
        """Return how many parts of a sample it shows, one after the other along the first axis, each to be encoded."""
        return 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the points along each axis of the delivered view."""
        raise NotImplementedError

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Return what is made on the host, as data."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(ViewSpec):
    """A random resized crop and flip of an image, made on the CPU, then photometric changes, on the training device.

    size: pixels a side of the square result; None: the backbone's image size.
    scale: range of the crop's area, as a share of the image's. ratio: range of its width over its height. share: of the
    image's shorter side, a square of that size anywhere instead.
    flip, jitter, gray, blur, solarize: the probability of each, in the order in which they are applied.
    gray_first: gray before jitter, as MoCo v1 and SeLa apply them.
    brightness, contrast, saturation, hue: strengths, as those of torchvision's ColorJitter.
    blur_sigma: range of the Gaussian's standard deviation, in pixels of the result.
    rand_augment: mean and deviation of the magnitude of timm's RandAugment, of 10; None: none. It is done on the CPU.
    cells: rows and columns of a grid whose cells are changed photometrically each by itself; what is beyond them, of a
    size that they do not divide, stays as it is.
    """

    modality: ClassVar[str] = "image"
    size: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray: float = 0.0
    gray_first: bool = False
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    cells: int = 1
    share: float | None = None
    rand_augment: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        assert 0 < self.scale[0] <= self.scale[1], self.scale
        assert 0 < self.ratio[0] <= self.ratio[1], self.ratio
        assert 0 < self.blur_sigma[0] <= self.blur_sigma[1], self.blur_sigma
        assert self.cells > 0, self.cells
        assert self.share is None or 0 < self.share <= 1, self.share

    @property
    def parts(self) -> int:
        """Return how many parts of the view are changed each with random numbers of its own."""
        return self.cells**2

    @property
    def lengths(self) -> tuple[int, ...]:
        return _square(self.size)

    @property
    def geometry(self) -> tuple[Any, ...]:
        squares = () if self.share is None else (self.share,)
        changes = () if self.rand_augment is None else ("rand_augment", *self.rand_augment)
        return self.size, self.scale, self.ratio, self.flip, self.resample, self.of, *squares, *changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Center(ViewSpec):
    """A square in the middle of an image, of a share of its shorter side; or all of it, squashed to a square.

    size: pixels a side of the result; None: the backbone's image size. flip: the probability that it is mirrored.
    rounded: to whole pixels, as random crops are, which are resized five times as fast as fractions of them.
    """

    modality: ClassVar[str] = "image"
    size: int | None = None
    share: float = 1.0
    flip: float = 0.0
    rounded: bool = False
    squashed: bool = False
    resample: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        assert 0 < self.share <= 1, self.share

    @property
    def lengths(self) -> tuple[int, ...]:
        return _square(self.size)

    @property
    def geometry(self) -> tuple[Any, ...]:
        squashed = (True,) if self.squashed else ()
        return self.size, self.share, self.flip, self.rounded, self.resample, self.of, *squashed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside(ViewSpec):
    """A view of what lies beside a sample, such as its caption; the last of an objective's.

    field: the modality. of: the number of a view whose part of the sample this one shows, too: the same box of a depth
    map, the sound of a clip; None: it is placed by itself. crop: how it is cropped and changed then, if it has pixels.
    """

    field: str
    crop: Crop = Crop()


def _square(size: int | None) -> tuple[int, ...]:
    assert size, "give views their sizes: see `Modality.views`"
    return size, size


class MapSpec(NamedTuple):
    """A map of pixels that an objective learns from, one of evaluator.MAPS. classes: more than its largest value."""

    name: str
    classes: int | None = None


@dataclasses.dataclass(frozen=True)
class Views:
    """The views that an objective asks of the stream, in order, and how many uniform random numbers a sample.

    maps: of the part of each image that the first view shows, mirrored with it.
    """

    specs: tuple[Any, ...]  # of ViewSpec
    draws: int = 0
    maps: tuple[MapSpec, ...] = ()

    def __post_init__(self) -> None:
        for number, spec in enumerate(self.specs):
            assert spec.of is None or 0 <= spec.of < number, f"view {number} is of view {spec.of}, no earlier one"

    @property
    def beside(self) -> tuple[str, ...]:
        """Return the modalities that are asked for beside samples."""
        return tuple(dict.fromkeys(spec.field for spec in self.specs if isinstance(spec, Beside)))

    @property
    def crops(self) -> tuple[Any, ...]:
        """Return `specs` under their first name."""
        warnings.warn("Views.crops is called Views.specs now", DeprecationWarning, stacklevel=2)
        return self.specs

    def place(self, number: int) -> int:
        """Return the number of the view that places this one: itself, or the first in its line of `of`."""
        of = self.specs[number].of
        return number if of is None else self.place(of)


def sized(views: Views, size: int) -> Views:
    """Return the same views, each with its own size or else `size`."""
    specs = tuple(dataclasses.replace(spec, size=spec.size or size) for spec in views.specs)
    return dataclasses.replace(views, specs=specs)


def boxes(
    crop: Crop, height: NDArray[np.integer], width: NDArray[np.integer], draws: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(n,), (n,), (n, CROP_DRAWS) -> (n, 4): top, left, height, width of each random crop, in whole pixels.

    The algorithm of torchvision's RandomResizedCrop: up to ten draws of an area (uniform) and an aspect ratio
    (log-uniform); the first shape that fits the image, anywhere in it; if none fits, the largest central crop whose
    aspect ratio is in range. A crop of a fixed share is a square of a pixel at least, anywhere. draws are uniform in
    [0, 1).
    """
    image = np.stack([height, width], axis=1).astype(np.float64)
    if crop.share is not None:
        side = np.rint(crop.share * image.min(axis=1, keepdims=True)).clip(1)
        fits, shape = np.ones_like(side, bool), np.concatenate([side, side], axis=1)
    else:
        fits, shape = _first_fitting(crop, image, draws)
        shape = np.where(fits, shape, _central(crop, image))
    room = image - shape
    corner = np.floor(np.where(fits, draws[:, 2 * ATTEMPTS : -1] * (room + 1), room / 2))
    return np.concatenate([corner, shape], axis=1)


def central_boxes(center: Center, height: NDArray[np.integer], width: NDArray[np.integer]) -> NDArray[np.float64]:
    """(n,), (n,) -> (n, 4): top, left, height, width of each square in the middle, of a pixel at least, or of all."""
    image = np.stack([height, width], axis=1).astype(np.float64)
    if center.squashed:
        return np.concatenate([np.zeros_like(image), image], axis=1)
    side = (center.share * image.min(axis=1, keepdims=True)).clip(1)
    if center.rounded:
        side = np.rint(side)
        return np.concatenate([np.floor((image - side) / 2), side, side], axis=1)
    return np.concatenate([(image - side) / 2, side, side], axis=1)


def flips(view: Crop | Center, draws: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(n, CROP_DRAWS) -> (n,): which samples are mirrored, left to right. No draw is read where none can be."""
    return draws[:, -1] < view.flip if view.flip else np.zeros(len(draws), bool)


def _first_fitting(
    crop: Crop, image: NDArray[np.float64], draws: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(n, 2), (n, CROP_DRAWS) -> (n, 1), (n, 2): does any attempt fit; height and width of the first that does."""
    area = image.prod(axis=1, keepdims=True) * _between(crop.scale, draws[:, :ATTEMPTS])
    low, high = np.log(crop.ratio)
    ratio = np.exp(_between((low, high), draws[:, ATTEMPTS : 2 * ATTEMPTS]))
    shapes = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=2)))  # (n, ATTEMPTS, 2)
    fits = ((shapes > 0) & (shapes <= image[:, None])).all(axis=2)
    return fits.any(axis=1, keepdims=True), shapes[np.arange(len(image)), fits.argmax(axis=1)]


def _central(crop: Crop, image: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) -> (n, 2): the image's height and width, each cut to where the aspect ratio comes into range."""
    height, width = image.T
    low, high = crop.ratio
    return np.stack([np.minimum(height, np.rint(width / low)), np.minimum(width, np.rint(height * high))], axis=1)


def _between(bounds: tuple[float, float], draws: NDArray[np.floating]) -> NDArray[np.float64]:
    low, high = bounds
    return low + (high - low) * draws.astype(np.float64)
