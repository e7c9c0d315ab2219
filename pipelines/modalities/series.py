"""Series: signals of one or several channels over time, such as of an ECG, an inertial sensor or a thermal strip.

A `.npy`, or an `.npz` of one array, is (time,) or (time, channels); a `.csv` has a row a time, perhaps under a line of
names. Augmentations are those of Um et al., "Data augmentation of wearable sensor data", ICMI 2017, arXiv:1706.00527:
slices that are stretched, scaling and jitter. Evaluation sees the middle; a shorter series goes on at its last values.
"""

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfsup.errors import DataError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.moments import mean_and_std, moments_of_channels
from selfsup.sections import Backbone
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

MIN_STD = 1e-6  # channels of one value would divide by zero
ROWS, REACH = 64, 3.0  # of a picture; deviations from its middle to its edge


class SeriesInput(Knobs):
    """Parts of series, and how those of training are changed."""

    points: int = knob(1024, "length of a sample, in points of time", ge=1, le=2**20)
    slice_min: float = knob(0.5, "smallest part that training stretches to it", sweep=Range(0.2, 1.0), gt=0, le=1)
    scaling: float = knob(0.1, "deviation of the factor of each channel, about its mean", sweep=Choice(0.0, 0.1), ge=0)
    jitter: float = knob(0.05, "noise in training, in deviations of the channel", sweep=Choice(0.0, 0.05), ge=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice(ViewSpec):
    """A part of a series. is_random: anywhere, stretched and changed, for training; else the middle."""

    modality: ClassVar[str] = "series"
    knobs: SeriesInput
    is_random: bool = True

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.knobs.points,)

    @property
    def geometry(self) -> tuple[Any, ...]:
        return *self.lengths, self.knobs.slice_min, self.is_random, self.of


class SeriesReading(Reading):
    """The settings by which series are read. channels: of all of them; None before they are measured."""

    channels: Annotated[int, Field(gt=0)] | None = None


class SeriesStats(SeriesReading):
    """Mean and std of each channel."""

    channels: Annotated[int, Field(gt=0)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    _of_every_channel = moments_of_channels()

    def identity(self) -> list[Any]:
        return [self.mean, self.std]


@final
class Series(Modality):
    """Slices are cut, stretched and changed on the host. Places and extents are in points of time."""

    suffixes, others = ("npy", "npz"), ("csv",)
    is_aside = True  # beside images, arrays are features or maps
    axes, values = ("time",), "series"
    Input, Reading, Stats = SeriesInput, SeriesReading, SeriesStats
    idle, place_draws = (*Modality.idle, "backbone.image_size", "embed.crop"), 2
    cheap: ClassVar[dict[str, Any]] = {"points": 32}

    def sizes(self, backbone: Backbone, knobs: SeriesInput) -> tuple[int, ...]:  # noqa: ARG002
        return (knobs.points,)

    def views(self, views: Views, sizes: tuple[int, ...], knobs: SeriesInput) -> Views:  # noqa: ARG002
        slices = tuple(Slice(knobs=knobs, mask=view.mask, of=view.of) for view in views.specs)
        return dataclasses.replace(views, specs=slices)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: SeriesInput) -> Slice:  # noqa: ARG002
        return Slice(knobs=knobs, is_random=False)

    def extent(self, data: Data, reading: SeriesReading) -> tuple[int, ...]:
        return (len(_decoded(data, reading)),)

    def place(self, view: Slice, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        length = extents[:, 0].astype(np.float64)
        longest = np.minimum(length, view.knobs.points)
        low = view.knobs.slice_min
        share, place = (low + (1 - low) * draws[:, 0], draws[:, 1]) if view.is_random else (1.0, 0.5)
        shown = np.maximum(np.floor(longest * share), 1)
        return np.stack([np.floor((length - shown) * place), shown, np.zeros_like(length)], axis=1)

    def raw(self, view: Slice, reading: SeriesReading) -> tuple[tuple[int, ...], type[np.generic]]:
        assert reading.channels, "series are measured before they are read"
        return (*view.lengths, reading.channels), np.float32

    def load(self, data: Data, boxes: Boxes, views: Sequence[Slice], reading: SeriesReading) -> list[Raw]:
        values = _decoded(data, reading)
        return [_stretched(values, box, view) for box, view in zip(boxes, views, strict=True)]

    def change_draws(self, view: Slice) -> int:
        return 2 if view.is_random and (view.knobs.scaling or view.knobs.jitter) else 0

    def change(self, raw: Raw, view: Slice, reading: SeriesStats, draws: NDArray[np.floating]) -> Raw:
        """(S, C), two numbers that seed a generator -> (S, C), scaled about the means of the data set, with noise"""
        normal = np.random.default_rng((draws * 2**24).astype(np.int64).tolist()).standard_normal
        factor = 1 + view.knobs.scaling * normal(raw.shape[1])
        noise = view.knobs.jitter * np.array(reading.std) * normal(raw.shape)
        return np.asarray(reading.mean + (raw - reading.mean) * factor + noise, np.float32)

    def augment_draws(self, view: Slice) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: Slice, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: Slice, stats: SeriesStats) -> "Tensor":  # noqa: ARG002
        mean, std = (values.new_tensor(part)[:, None] for part in (stats.mean, stats.std))
        return (values - mean) / std

    def picture(self, values: "Tensor", stats: SeriesStats) -> NDArray[np.uint8]:  # noqa: ARG002
        """-> (B, 64, S, 3): time to the right, each channel a curve, three deviations to each side of its mean"""
        from matplotlib import colormaps

        samples, channels, length = values.shape
        picture = np.full((samples, ROWS, length, 3), 255, np.uint8)
        row = ((REACH - values.numpy()) / (2 * REACH) * ROWS).clip(0, ROWS - 1).astype(int)
        for channel in range(channels):
            color = np.array(colormaps["tab10"](channel % 10, bytes=True)[:3])
            picture[np.arange(samples)[:, None], row[:, channel], np.arange(length)] = color
        return picture

    def measure(self, data: Data, reading: SeriesReading) -> NDArray[np.float64]:
        """-> (2, C): the first two moments of each channel"""
        values = _decoded(data, reading).astype(np.float64)
        return np.stack([values.mean(axis=0), (values**2).mean(axis=0)])

    def statistics(self, measures: Sequence[NDArray[np.float64]], reading: SeriesReading) -> SeriesStats:  # noqa: ARG002
        counts = sorted({measure.shape[1] for measure in measures})
        if len(counts) > 1:
            raise DataError(f"series of {' and '.join(map(str, counts))} channels; expected as many in all of them")
        first, second = np.mean(measures, axis=0)
        mean, std = mean_and_std(first, second, MIN_STD)
        return SeriesStats(channels=counts[0], mean=mean, std=std)


def _stretched(values: Raw, box: NDArray[np.float64], view: Slice) -> Raw:
    """(time, C) -> (S, C): by linear interpolation, unless evaluation sees it, or a whole slice does not fill it"""
    start, shown, points = int(box[0]), int(box[1]), view.knobs.points
    part = values[start : start + shown]
    if shown == points:
        return part
    if not view.is_random:
        return np.pad(part, [(0, points - shown), (0, 0)], mode="edge")
    place = np.linspace(0, shown - 1, points)
    return np.stack([np.interp(place, np.arange(shown), column) for column in part.T], axis=1).astype(np.float32)


def _decoded(data: Data, reading: SeriesReading) -> NDArray[np.float32]:
    """-> (time, channels). Raises DecodeError."""
    try:
        values = np.asarray(_array(io.BytesIO(data)), np.float32)
    except (ValueError, OSError, EOFError, TypeError, MemoryError, zipfile.BadZipFile) as error:
        raise DecodeError(f"a damaged series, or none: {error}") from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise DecodeError(f"expected finite numbers, (time,) or (time, channels), not an array of {values.shape}")
    if reading.channels not in (None, values.shape[1]):
        raise DecodeError(f"{values.shape[1]} channels, where others have {reading.channels}")
    return values


def _array(file: io.BytesIO) -> Any:
    """Return the array in a NumPy file or in text. Raises what NumPy raises for others."""
    kind = file.getvalue()[:6]
    if kind == b"\x93NUMPY":
        return np.load(file, allow_pickle=False)
    if kind[:2] == b"PK":
        [name, *others] = (arrays := np.load(file, allow_pickle=False)).files
        if others:
            raise ValueError(f"{len(arrays.files)} arrays, {name} and others; expected one")
        return arrays[name]
    lines = file.getvalue().decode().splitlines()
    if not lines:
        raise ValueError("it is empty")
    return np.loadtxt(lines[1:] if _is_heading(lines[0]) else lines, delimiter=",", ndmin=2)


def _is_heading(line: str) -> bool:
    try:
        [float(cell) for cell in line.split(",")]
    except ValueError:
        return True
    return False
