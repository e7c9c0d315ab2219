"""The second view of a scene, `.right.jpg` beside an image: read, cropped and changed as images are, but by itself.

Its camera stands anywhere, though evaluations of stereo pairs take it to be on the right. Its index is that of the
annotation of this name, and its mean and deviation are those of the images.
"""

import dataclasses
from typing import Any, ClassVar, final

from selfsup.knob import Knobs
from selfsup.pipelines.data.annotation import RIGHT, SUFFIXES
from selfsup.pipelines.modalities.image import Image
from selfsup.views import Center, Crop, Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class RightCrop(Crop):
    """A crop of the second view."""

    modality: ClassVar[str] = RIGHT

    @property
    def geometry(self) -> tuple[Any, ...]:
        return RIGHT, *super().geometry


@dataclasses.dataclass(frozen=True, kw_only=True)
class RightCenter(Center):
    """The middle of the second view."""

    modality: ClassVar[str] = RIGHT

    @property
    def geometry(self) -> tuple[Any, ...]:
        return RIGHT, *super().geometry


@final
class RightImage(Image):
    """An image that lies beside another one."""

    suffixes, others = (SUFFIXES[RIGHT],), ()
    kin = "image"

    def views(self, views: Views, sizes: tuple[int, ...], knobs: Knobs) -> Views:
        specs = tuple(_right(spec) for spec in super().views(views, sizes, knobs).specs)
        return dataclasses.replace(views, specs=specs)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: Knobs) -> RightCenter:  # noqa: ARG002
        return RightCenter(size=sizes[0], share=share)


def _right(spec: Crop | Center) -> RightCrop | RightCenter:
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return RightCrop(**fields) if isinstance(spec, Crop) else RightCenter(**fields)
