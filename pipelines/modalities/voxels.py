"""Voxels: the cubes of a grid in which a cloud has points, another form of what `points` reads, alone or beside them.

A view is a part of a cloud, cut, turned, stretched and moved as those of points are, by knobs of its own; then each
cube of a grid about the middle is 1 where there is a point, and else 0. Points beyond the grid are left out, and so is
all that is known of points beside their coordinates. A ViT's tokens are cubes of `patch_size` cubes a side.

A view's box is that of points, whose first two numbers stand there three times, for each axis: the point about which
the view is cut, and how many there are about it.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from selfsup.knob import Choice, knob
from selfsup.modality import Boxes, Data, Modality, Raw, Reading
from selfsup.pipelines.modalities.clouds.decode import centered, decode, length
from selfsup.pipelines.modalities.points import AXES, CloudInput, CloudView, Points, PointsReading, shown
from selfsup.sections import Backbone
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

POINTS = Points()  # which place views as those of voxels are
BARE = PointsReading(channels=AXES)
TWICE = 1, 2, 4, 5  # of a box: what stands in it more than once


class VoxelsInput(CloudInput):
    """Views of clouds as voxels, and their grid."""

    side: int = knob(32, "cubes of the grid along each axis", sweep=Choice(16, 32, 64), ge=1, le=512)
    reach: float = knob(1.25, "from the middle to a side of the grid, in radii of a cloud", gt=0, le=100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoxelView(ViewSpec):
    """A grid about a view of a cloud."""

    modality: ClassVar[str] = "voxels"
    channels: ClassVar[int | None] = 1
    knobs: VoxelsInput
    cloud: CloudView

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.knobs.side,) * AXES

    @property
    def geometry(self) -> tuple[Any, ...]:
        return "voxels", *self.cloud.geometry, self.of


class VoxelsReading(Reading):
    """The settings by which voxels are read: there are none, and no statistics, since they are 0 or 1."""

    channels: Literal[1] = 1

    def identity(self) -> list[Any]:
        return []


@final
class Voxels(Modality):
    """Clouds are cut, turned and moved as points are, and fill the cubes of a grid, on the host."""

    suffixes, form_of = (), "points"
    axes, values = ("x", "y", "z"), "voxels"
    given = "voxels", "(B, 1, side, side, side), 1 where a point is, else 0"
    Input, Reading, Stats = VoxelsInput, VoxelsReading, VoxelsReading
    idle = *Modality.idle, "backbone.image_size", "embed.crop"
    place_draws, pose = Points.place_draws, Points.pose
    cheap: ClassVar[dict[str, Any]] = {"points": 64, "side": 16}

    def sizes(self, backbone: Backbone, knobs: VoxelsInput) -> tuple[int, ...]:  # noqa: ARG002
        return (knobs.side,) * AXES

    def views(self, views: Views, sizes: tuple[int, ...], knobs: VoxelsInput) -> Views:  # noqa: ARG002
        cloud = CloudView(knobs=knobs)
        grids = tuple(VoxelView(knobs=knobs, cloud=cloud, mask=view.mask, of=view.of) for view in views.specs)
        return dataclasses.replace(views, specs=grids)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: VoxelsInput) -> VoxelView:  # noqa: ARG002
        return VoxelView(knobs=knobs, cloud=CloudView(knobs=knobs, is_random=False))

    def extent(self, data: Data, reading: VoxelsReading) -> tuple[int, ...]:  # noqa: ARG002
        return (length(data),) * AXES

    def place(self, view: VoxelView, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        return _thrice(POINTS.place(view.cloud, extents[:, :1], draws))

    def follow(
        self,
        view: VoxelView,
        extents: NDArray[np.integer],
        draws: NDArray[np.floating],
        axes: Sequence[str],
        boxes: Boxes,
    ) -> Boxes:
        """Return the part that a view of the same points shows, in its pose; of another kind of data one of its own."""
        return _thrice(boxes[:, :-1]) if axes == Points.axes else self.place(view, extents, draws)

    def raw(self, view: VoxelView, reading: VoxelsReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.uint8

    def load(
        self,
        data: Data,
        boxes: Boxes,
        views: Sequence[VoxelView],
        reading: VoxelsReading,  # noqa: ARG002
    ) -> list[Raw]:
        xyz, own = centered(decode(data).values[:, :AXES]), np.delete(boxes, TWICE, axis=1)
        clouds = (shown(xyz, box, view.knobs.points, BARE) for box, view in zip(own, views, strict=True))
        return [_filled(cloud, view.knobs) for cloud, view in zip(clouds, views, strict=True)]

    def augment_draws(self, view: VoxelView) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: VoxelView, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: VoxelView, stats: VoxelsReading) -> "Tensor":  # noqa: ARG002
        return values.float()

    def picture(self, values: "Tensor", stats: VoxelsReading) -> NDArray[np.uint8]:  # noqa: ARG002
        """-> (B, side, side, 3): seen along y from the front, near cubes dark; x to the right, z upwards"""
        from matplotlib import colormaps

        filled = values[:, 0].numpy() > 0.5
        first = filled.argmax(axis=2) / filled.shape[2]
        colors = colormaps["viridis"](first.clip(0, 0.9), bytes=True)[..., :3]
        seen = np.where(np.expand_dims(filled.any(axis=2), -1), colors, 255).astype(np.uint8)
        return seen.transpose(0, 2, 1, 3)[:, ::-1]

    def measure(self, data: Data, reading: VoxelsReading) -> int:  # noqa: ARG002
        return length(data)

    def statistics(self, measures: Sequence[int], reading: VoxelsReading) -> VoxelsReading:  # noqa: ARG002
        return reading


def _thrice(box: Boxes) -> Boxes:
    """(n, 15), of points -> (n, 19): what is of their one axis, for each of three"""
    return np.concatenate([box[:, :2].repeat(AXES, axis=1), box[:, 2:]], axis=1)


def _filled(xyz: Raw, knobs: VoxelsInput) -> Raw:
    """(n, 3) -> (side, side, side, 1): 1 where a cube has a point"""
    place = np.floor((xyz / knobs.reach + 1) / 2 * knobs.side)
    inside = ((place >= 0) & (place < knobs.side)).all(axis=1)
    grid = np.zeros((knobs.side,) * AXES, np.uint8)
    grid[tuple(place[inside].astype(np.intp).T)] = 1
    return grid[..., None]
