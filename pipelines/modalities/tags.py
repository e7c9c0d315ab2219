"""Tags: several labels of a sample, such as its hashtags, as numbers of classes.

They lie beside an image or another sample in its shard, as `.tags.json`, a list of numbers from 0. Of a repeated one
counts the first.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.knob import Knobs, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.sections import Backbone
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.patch import Patch
    from selfsup.parts.tokens import Tokens

PADDING = -1  # the number of no class


class TagsInput(Knobs):
    """Labels of a sample, of any number."""

    classes: int = knob(1000, "classes that tags are of", gt=0, le=2**24)
    most: int = knob(32, "tags of a sample, at most", gt=0, le=2**16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagList(ViewSpec):
    """The tags of a sample."""

    modality: ClassVar[str] = "tags"
    channels: ClassVar[int | None] = 1
    knobs: TagsInput

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.knobs.most,)

    @property
    def geometry(self) -> tuple[Any, ...]:
        return "tags", self.knobs.classes, self.knobs.most


class TagsReading(Reading):
    """The settings by which tags are read: there are none, and no statistics."""

    channels: Literal[1] = 1

    def identity(self) -> list[Any]:
        return []


@final
class Tags(Modality):
    """Tags are classes of the sample, each as much as the others. No encoder reads them."""

    suffixes = ("tags.json",)
    axes, values = ("tag",), "tags"
    given = "tags", "(B, 1, most), their numbers, -1 for padding"
    Input, Reading, Stats = TagsInput, TagsReading, TagsReading
    place_draws = 0
    is_companion = True
    absent = PADDING
    cheap: ClassVar[dict[str, Any]] = {"classes": 8, "most": 4}

    def sizes(self, backbone: Backbone, knobs: TagsInput) -> tuple[int, ...]:  # noqa: ARG002
        return (knobs.most,)

    def views(self, views: Views, sizes: tuple[int, ...], knobs: TagsInput) -> Views:  # noqa: ARG002
        return dataclasses.replace(views, specs=tuple(TagList(knobs=knobs) for _ in views.specs))

    def whole(self, sizes: tuple[int, ...], share: float, knobs: TagsInput) -> TagList:  # noqa: ARG002
        return TagList(knobs=knobs)

    def extent(self, data: Data, reading: TagsReading) -> tuple[int, ...]:  # noqa: ARG002
        return (1,)

    def place(self, view: TagList, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:  # noqa: ARG002
        return np.tile([0.0, 1.0, 0.0], (len(extents), 1))

    def raw(self, view: TagList, reading: TagsReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.int32

    def load(self, data: Data, boxes: Boxes, views: Sequence[TagList], reading: TagsReading) -> list[Raw]:  # noqa: ARG002
        return [_padded(tags(data), view.knobs) for view in views]

    def augment_draws(self, view: TagList) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: TagList, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: TagList, stats: TagsReading) -> "Tensor":  # noqa: ARG002
        return values

    def seen(self, values: "Tensor", patch: "Patch | None") -> "Tokens":  # noqa: ARG002
        """(B, 1, most) -> Tokens, value (B, most, 1) int64, classes, 0 where they are padding"""
        from selfsup.parts.numbered import numbered

        return numbered(values)

    def vocabulary(self, knobs: TagsInput) -> int:
        return knobs.classes

    def picture(self, values: "Tensor", stats: TagsReading) -> NDArray[np.uint8]:
        raise NotImplementedError

    def measure(self, data: Data, reading: TagsReading) -> int:  # noqa: ARG002
        return len(tags(data))

    def statistics(self, measures: Sequence[int], reading: TagsReading) -> TagsReading:  # noqa: ARG002
        return reading


def tags(data: Data) -> list[int]:
    """Return the tags in a member, each once. Raises DecodeError where there is none."""
    try:
        content = json.loads(bytes(data))
    except ValueError as error:
        raise DecodeError(f"no JSON: {error}") from error
    if not (isinstance(content, list) and content and all(type(tag) is int and tag >= 0 for tag in content)):
        raise DecodeError("expected a list of classes, numbers from 0, one at least")
    return list(dict.fromkeys(content))


def _padded(numbers: list[int], knobs: TagsInput) -> Raw:
    """-> (most, 1) int32. Raises DataError for more tags, or classes, than there are."""
    if max(numbers) >= knobs.classes:
        raise DataError(f"a tag is class {max(numbers)}, of {knobs.classes}: set input.tags.classes to more")
    if len(numbers) > knobs.most:
        raise DataError(f"{len(numbers)} tags of a sample, of {knobs.most} at most: set input.tags.most to more")
    return np.pad(np.array(numbers, np.int32), (0, knobs.most - len(numbers)), constant_values=PADDING)[:, None]
