"""The interface of a photometric operation of the user's, and the section `augment` of a spec, which names it.

    augment: {use: ./stains.py, strength: 0.1}                          # a file, relative to the spec; every view
    augment: {use: my_lab.augment:BandDropout, share: 0.3, views: [0]}  # an installed class; the first view

It changes training views after all that the method asks for, before normalization. Only applying it needs torch.
"""

import abc
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from selfsup import outside
from selfsup.errors import SpecError
from selfsup.knob import Knobs, knob
from selfsup.layers import find
from selfsup.source import Node, Problem

if TYPE_CHECKING:
    from torch import Tensor

Numbers = tuple[Annotated[int, Field(ge=0)], ...]
USE = "an augmentation of your own: ./mine.py, or my_lab.augment:Mine"
VIEWS = "numbers of the views that it changes, from 0; null: all"


class Augmentation(abc.ABC):
    """A photometric operation on images, a pure function of each image and its random numbers.

    Hyper: its knobs, beside which a spec says `use` and `views`. channels: the numbers of channels that it takes; None:
    any. B: images, C: channels.
    """

    Hyper: ClassVar[type[Knobs]] = Knobs
    channels: ClassVar[tuple[int, ...] | None] = None

    def __init__(self, hyper: Any) -> None:
        self.hyper = hyper

    @abc.abstractmethod
    def num_draws(self, channels: int) -> int:
        """Return how many random numbers an image takes."""

    @abc.abstractmethod
    def apply(self, images: "Tensor", draws: "Tensor") -> "Tensor":
        """(B, C, H, W) float32 in [0, 1], (B, num_draws) in [0, 1) -> (B, C, H, W) float32 in [0, 1]

        Both are on the training device. Images may be changed in place.
        """


@dataclass(frozen=True)
class OwnAugmentation:
    """An augmentation as a spec names it. views: the numbers of those that it changes; None: all."""

    use: str
    hyper: Knobs
    views: tuple[int, ...] | None

    @functools.cached_property
    def operation(self) -> Augmentation:
        return load(self.use)(self.hyper)

    def changes(self, view: int) -> bool:
        return self.views is None or view in self.views

    def num_draws(self, channels: int) -> int:
        return self.operation.num_draws(channels)

    def apply(self, images: "Tensor", draws: "Tensor") -> "Tensor":
        """(B, C, H, W), (B, num_draws) -> (B, C, H, W), contiguous"""
        result = self.operation.apply(images, draws)
        if (result.shape, result.dtype) != (images.shape, images.dtype):
            made = f"{tuple(result.shape)} {result.dtype} of {tuple(images.shape)} {images.dtype}"
            raise SpecError(f"{self.use} makes {made}; run selfsup check-augmentation {self.use}", "augment.use")
        return result.contiguous()


class AnyAugmentation(Knobs, extra="allow"):
    """The section of an augmentation of which nothing is known while `use` is wrong, or not there yet."""

    use: str = knob(..., USE)
    views: Numbers | None = knob(None, VIEWS, min_length=1)


def load(name: str) -> type[Augmentation]:
    """Return the class in a file of the user's, or `module:Class`.

    Raises SpecError where it cannot be imported, or is no complete augmentation.
    """
    kind = outside.load(name, Augmentation, ())
    if taken := {"use", "views"} & kind.Hyper.model_fields.keys():
        raise SpecError(f"{name}: {sorted(taken)[0]} is a key of `augment` itself; give the knob another name")
    return kind


def used(tree: Mapping[str, Any]) -> str | None:
    """Return what a spec names under `augment`, if it can be loaded. tree: as written, valid or not."""
    section = tree.get("augment")
    use = section.get("use") if isinstance(section, Mapping) else None
    return use if isinstance(use, str) and not _problem(use) else None


def unusable(root: Node) -> Iterator[Problem]:
    """Yield what is wrong with the augmentation that a rooted tree names."""
    place = ("augment", "use")
    entry = find(root, place)
    if entry and isinstance(use := entry.node.value, str) and (problem := _problem(use)):
        yield Problem(entry.node.mark, place, problem)


def _problem(use: str) -> str:
    try:
        load(use)
    except SpecError as error:
        return error.bare
    return ""


@functools.cache
def section(use: str | None) -> type[Knobs]:
    """Return the class of `augment`: the knobs of an augmentation, `use` and `views`. None: of any."""
    if use is None:
        return AnyAugmentation
    fields: Any = {
        "use": (Literal[use], knob(..., USE)),
        "views": (Numbers | None, knob(None, VIEWS, min_length=1)),
    }
    return create_model(f"{outside.short(use)}_augmentation", __base__=load(use).Hyper, **fields)


def own(augment: Any) -> OwnAugmentation | None:
    """Return the augmentation of a section `augment`; None without one."""
    if augment is None:
        return None
    hyper = load(augment.use).Hyper
    values = {name: getattr(augment, name) for name in hyper.model_fields}
    return OwnAugmentation(augment.use, hyper.model_validate(values), augment.views)
