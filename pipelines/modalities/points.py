"""Points: clouds, such as of scans or of the surfaces of solids, with normals, colors or other values, or without.

Coordinates are from the middle of a cloud, whose farthest point is at distance 1. A view has so many points of it,
drawn at random, and of a smaller cloud some several times; evaluation sees the same ones always. Defaults are those of
Point-MAE (arXiv 2203.06604) on ShapeNet: 1024 points, stretched and moved at random. A ViT's tokens are groups of
`backbone.patch_size` points, twice as many as would hold each point once; see `parts.groups`.

A `.ply` has x, y and z, perhaps nx, ny and nz, and red, green and blue. A `.points.npy`, or a `.points.npz` of one
array, is (points, 3 or more), coordinates first; an `.npz` of several has them as `points`, `normals` and `colors`, or
has `depth` and `intrinsics`: a depth map, which is lifted to a cloud.
Colors of 8 or 16 bits are shares of the largest.

A view's box: of the order in the file, where the point is about which the view is cut, and how many points there are
about it; then its pose, see `clouds.poses`, by which a point that it shows is found again in the cloud.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfsup.errors import DataError, SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.moments import mean_and_std, moments_of_channels
from selfsup.pipelines.modalities.clouds.decode import Values, centered, decode, length
from selfsup.pipelines.modalities.clouds.poses import DRAWS, SIZE, matrices, poses, rotations
from selfsup.sections import Backbone
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.patch import Patch
    from selfsup.parts.tokens import Tokens

AXES = 3
MIN_STD = 1e-6  # values that are the same everywhere would divide by zero
CUT = 5.0  # deviations at which noise is cut, as PointNet's
SIDE = 64  # pixels of a picture


class CloudInput(Knobs):
    """Views of clouds, and how those of training are cut, turned and moved."""

    points: int = knob(1024, "points of a view", sweep=Choice(512, 1024, 2048), ge=1, le=2**20)
    crop_min: float = knob(
        1.0, "smallest part that training sees, of the points nearest to one", sweep=Range(0.3, 1.0), gt=0, le=1
    )
    rotation: Literal["none", "x", "y", "z", "any"] = knob(
        "none", "training turns clouds about an axis, or about any", sweep=Choice("none", "z", "any")
    )
    scale: float = knob(1.5, "training stretches each axis by up to this factor, or its inverse", ge=1, le=100)
    translation: float = knob(0.2, "training moves clouds by up to so much along each axis", ge=0, le=100)
    flip: bool = knob(False, "training mirrors each axis of half of the clouds", sweep=Choice(True, False))


class PointsInput(CloudInput):
    """Views of clouds as points, and their noise."""

    jitter: float = knob(0.0, "deviation of the noise on coordinates in training", sweep=Choice(0.0, 0.01), ge=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudView(ViewSpec):
    """Points of a cloud. is_random: of a part of it, turned and changed, for training; else of all, as it is."""

    modality: ClassVar[str] = "points"
    knobs: CloudInput
    is_random: bool = True

    @property
    def jitter(self) -> float:
        return self.knobs.jitter if self.is_random and isinstance(self.knobs, PointsInput) else 0.0

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.knobs.points,)

    @property
    def geometry(self) -> tuple[Any, ...]:
        return *(value for name, value in self.knobs if name != "jitter"), self.is_random, self.of


class PointsReading(Reading):
    """The settings by which clouds are read. channels: of all of them; None before they are measured.

    normals: whether the values after the coordinates are normals, which turn with them.
    """

    channels: Annotated[int, Field(ge=AXES)] | None = None
    normals: bool = False


class PointsStats(PointsReading):
    """Mean and std of each value; of coordinates and normals, which stay as they are, 0 and 1."""

    channels: Annotated[int, Field(ge=AXES)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    _of_every_channel = moments_of_channels()

    def identity(self) -> list[Any]:
        return [self.mean, self.std, *(["normals"] if self.normals else [])]


class CloudMeasure(NamedTuple):
    """The first two moments of each value of a cloud, (C,) each, and whether it has normals."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    has_normals: bool


@final
class Points(Modality):
    """Points are chosen, turned, moved and disturbed on the host, and grouped on the training device."""

    suffixes, others = ("ply",), ("points.npz", "points.npy")
    axes, values = ("grouped point",), "clouds"
    given = "clouds", "(B, C, N), coordinates first, of any number of points"
    Input, Reading, Stats = PointsInput, PointsReading, PointsStats
    idle = *Modality.idle, "backbone.image_size", "backbone.positions", "embed.crop"
    place_draws, pose, in_groups = DRAWS + 2, SIZE, True
    cheap: ClassVar[dict[str, Any]] = {"points": 64}

    def sizes(self, backbone: Backbone, knobs: PointsInput) -> tuple[int, ...]:  # noqa: ARG002
        from selfsup.parts.groups import OVERLAP

        return (OVERLAP * knobs.points,)

    def views(self, views: Views, sizes: tuple[int, ...], knobs: PointsInput) -> Views:  # noqa: ARG002
        clouds = tuple(CloudView(knobs=knobs, mask=view.mask, of=view.of) for view in views.specs)
        return dataclasses.replace(views, specs=clouds)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: PointsInput) -> CloudView:  # noqa: ARG002
        return CloudView(knobs=knobs, is_random=False)

    def extent(self, data: Data, reading: PointsReading) -> tuple[int, ...]:  # noqa: ARG002
        return (length(data),)

    def place(self, view: CloudView, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        number, none = extents[:, :1].astype(np.float64), np.zeros((len(extents), 1))
        if not view.is_random:
            same = poses(np.tile(np.eye(AXES), (len(extents), 1, 1)), np.zeros((len(extents), AXES)))
            return np.concatenate([none, number, none, same], axis=1)
        draw, low = draws.astype(np.float64), view.knobs.crop_min
        seen = np.maximum(np.floor(number * (low + (1 - low) * draw[:, 1:2])), 1) if low < 1 else number
        return np.concatenate([number * draw[:, :1], seen, none, _pose(view.knobs, draw[:, 2:])], axis=1)

    def raw(self, view: CloudView, reading: PointsReading) -> tuple[tuple[int, ...], type[np.generic]]:
        assert reading.channels, "clouds are measured before they are read"
        return (*view.lengths, reading.channels), np.float32

    def load(self, data: Data, boxes: Boxes, views: Sequence[CloudView], reading: PointsReading) -> list[Raw]:
        values = centered(_decoded(data, reading))
        return [shown(values, box, view.knobs.points, reading) for box, view in zip(boxes, views, strict=True)]

    def fit(self, samples: "Tensor", view: CloudView, reading: PointsReading) -> "Tensor":
        """(B, C, N) -> (B, n, C): the points of each that evaluation sees, from the middle of its cloud on"""
        import torch

        if samples.ndim != 3 or samples.shape[1] != reading.channels or not samples.shape[2]:
            raise SpecError(f"expected clouds, ('B', {reading.channels}, 'N'), not {tuple(samples.shape)}")
        clouds = samples.mT.cpu().double().numpy()
        box = self.place(view, np.array([[samples.shape[2]]]), np.empty((1, 0)))[0]
        seen = [shown(centered(cloud), box, view.knobs.points, reading) for cloud in clouds]
        return torch.from_numpy(np.stack(seen)).to(samples.device)

    def change_draws(self, view: CloudView) -> int:
        return 2 if view.jitter else 0

    def change(self, raw: Raw, view: CloudView, reading: PointsStats, draws: NDArray[np.floating]) -> Raw:  # noqa: ARG002
        """(n, C), two numbers that seed a generator -> (n, C), with noise on coordinates"""
        normal = np.random.default_rng((draws * 2**24).astype(np.int64).tolist()).standard_normal
        noise = view.jitter * normal((len(raw), AXES)).clip(-CUT, CUT)
        return np.concatenate([raw[:, :AXES] + noise, raw[:, AXES:]], axis=1, dtype=np.float32)

    def augment_draws(self, view: CloudView) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: CloudView, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: CloudView, stats: PointsStats) -> "Tensor":  # noqa: ARG002
        mean, std = (values.new_tensor(part)[:, None] for part in (stats.mean, stats.std))
        return (values - mean) / std

    def seen(self, values: "Tensor", patch: "Patch | None") -> "Tokens | Tensor":
        from selfsup.parts.groups import grouped
        from selfsup.parts.patch import side_of

        return values if patch is None else grouped(values, side_of(patch))

    def picture(self, values: "Tensor", stats: PointsStats) -> NDArray[np.uint8]:  # noqa: ARG002
        """-> (B, 64, 64, 3): seen along y from the front, near points dark; x to the right, z upwards"""
        from matplotlib import colormaps

        picture = np.full((len(values), SIDE, SIDE, 3), 255, np.uint8)
        for own, cloud in zip(picture, values[:, :AXES].numpy(), strict=True):
            there = cloud[:, (cloud != 0).any(axis=0)]  # masked tokens are zero
            x, y, z = there[:, np.argsort(-there[1])]  # from the back to the front
            column, row = (((1 + place) / 2 * SIDE).clip(0, SIDE - 1).astype(int) for place in (x, -z))
            own[row, column] = colormaps["viridis"](((1 + y) / 2).clip(0, 0.9), bytes=True)[:, :3]
        return picture

    def measure(self, data: Data, reading: PointsReading) -> CloudMeasure:
        cloud = decode(data)
        _check(cloud.values, reading)
        values = cloud.values
        return CloudMeasure(values.mean(axis=0), (values**2).mean(axis=0), cloud.has_normals)

    def statistics(self, measures: Sequence[CloudMeasure], reading: PointsReading) -> PointsStats:  # noqa: ARG002
        """Return means over clouds, each of the same weight. Raises DataError where they have different values."""
        kinds = sorted({(len(measure.first), measure.has_normals) for measure in measures})
        if len(kinds) > 1:
            counts = " and ".join(f"{number}{' with normals' * normals}" for number, normals in kinds)
            raise DataError(f"points of {counts} values; expected as many of all of them")
        [(channels, normals)] = kinds
        first, second = (np.mean(values, axis=0) for values in zip(*(measure[:2] for measure in measures), strict=True))
        (mean, std), fixed = mean_and_std(first, second, MIN_STD), AXES * (1 + normals)
        mean, std = (0.0,) * fixed + mean[fixed:], (1.0,) * fixed + std[fixed:]
        return PointsStats(channels=channels, normals=normals, mean=mean, std=std)


def _pose(knobs: CloudInput, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 12) in [0, 1) -> (n, 12): rotation, then a factor of each axis, then a shift"""
    turned = rotations(knobs.rotation, draws[:, :3])
    low = 1 / knobs.scale
    factor = low + (knobs.scale - low) * draws[:, 3:6]
    mirror = np.where(draws[:, 6:9] < 0.5, -1.0, 1.0) if knobs.flip else 1.0
    shift = knobs.translation * (2 * draws[:, 9:12] - 1)
    return poses((factor * mirror)[..., None] * turned, shift)


def shown(values: Values, box: NDArray[np.float64], number: int, reading: PointsReading) -> Raw:
    """(N, C), (15,) and perhaps more -> (number, C): points of the part that a box has, in its pose"""
    start, part, matrix, shift = box[0], int(box[1]), *matrices(box[AXES : AXES + SIZE])
    if part < len(values):
        apart = ((values[:, :AXES] - values[int(start), :AXES]) ** 2).sum(axis=1)
        values = values[np.argsort(apart, kind="stable")[:part]]
    order = np.random.default_rng(box[:1].view(np.uint32).tolist()).permutation(len(values))
    values = values[order[np.arange(number) % len(order)]]
    parts: list[Values] = [values[:, :AXES] @ matrix.T + shift]
    if reading.normals:
        parts.append(_unit(values[:, AXES : 2 * AXES] @ np.linalg.inv(matrix)))
    return np.concatenate([*parts, values[:, AXES * len(parts) :]], axis=1, dtype=np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) -> (N, 3): of length 1"""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def _decoded(data: Data, reading: PointsReading) -> Values:
    cloud = decode(data)
    _check(cloud.values, reading)
    if cloud.has_normals != reading.normals:
        raise DecodeError(f"it has {'normals' if cloud.has_normals else 'none'}, unlike others")
    return cloud.values


def _check(values: Values, reading: PointsReading) -> None:
    """Raise DecodeError for a cloud with other values than those measured."""
    if reading.channels not in (None, values.shape[1]):
        raise DecodeError(f"points of {values.shape[1]} values, where others have {reading.channels}")
