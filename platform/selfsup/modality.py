"""The interface of a kind of data; `pipelines/modalities/` holds one a file, and is the registry.

What runs on the host needs no torch. A: axes, B: batch, C: channels, S: points along each axis, V: views.
"""

import abc
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from selfsup import registry
from selfsup.coding import Coding
from selfsup.errors import DataError, SelfsupError, SpecError
from selfsup.knob import Knobs
from selfsup.sections import Backbone, Embed
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.encoder_interface import Encoder
    from selfsup.parts.patch import Patch
    from selfsup.parts.tokens import Tokens

MODALITIES = "selfsup.pipelines.modalities"  # the package, which is above this one
Data = bytes | memoryview  # of an encoded sample
Boxes = NDArray[np.float64]  # (..., 2A + 1): the start along each axis, the extent along each; 1 if mirrored; a pose
Raw = NDArray[Any]  # (*S, C): a view as it is loaded
TIME = "frame"  # the axis that all modalities measure in milliseconds


class DecodeError(DataError, ValueError):
    """Bytes that are not a complete sample."""


class Reading(BaseModel):
    """Settings by which samples of a data set are read, kept in its manifest; `Modality.Stats` adds statistics.

    channels: values of a point.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    channels: Any

    def identity(self) -> list[Any]:
        """Return the settings that results depend on, without those at their defaults."""
        raise NotImplementedError


class Modality(abc.ABC):
    """A kind of data: how its samples are packed, read, placed, augmented and shown. Stateless.

    suffixes: of the members of a shard that hold it. others: read where a sample has none of these. form_of: the
    modality whose members it reads, in another form, and has none of its own. requires: modules beyond selfsup's own,
    which the extra of its name installs. is_aside: whether such members are data in shards that hold no other kind
    alone. axes: what a view has along each axis. values: what its points are. given: what `fit` takes, and its shape,
    in words. Input: its part of a spec's `input`. idle: other settings of a spec that change nothing of it.
    place_draws: random numbers that placing a view takes, uniform in [0, 1). in_groups: whether a token is a group of
    its points, which has no place on a grid. pose: numbers at the end of a box that say how a view is turned and moved.
    is_companion: whether it lies beside another modality alone, and its encoder is its own `tower`, which no backbone
    describes. tower_knobs: those of `Input` that are this tower's alone. kin: the modality that it is another view of,
    which it is read as, and beside which it lies as an annotation of its name. absent: the value of all points of a
    loaded view that a sample lacks; None: no objective learns without it. cheap: knobs of small
    samples and a small tower, with which `selfsup check-method` runs.
    """

    suffixes: ClassVar[tuple[str, ...]]
    others: ClassVar[tuple[str, ...]] = ()
    form_of: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    is_aside: ClassVar[bool] = False
    axes: ClassVar[tuple[str, ...]]
    values: ClassVar[str]
    given: ClassVar[tuple[str, str]] = "samples", "(B, C, *S), of the encoder's size"
    Input: ClassVar[type[Knobs]] = Knobs
    Reading: ClassVar[type[Any]]  # subclasses of Reading
    Stats: ClassVar[type[Any]]
    idle: ClassVar[tuple[str, ...]] = ("embed.clips", "embed.crops")
    place_draws: ClassVar[int]
    in_groups: ClassVar[bool] = False
    pose: ClassVar[int] = 0
    is_companion: ClassVar[bool] = False
    kin: ClassVar[str | None] = None
    absent: ClassVar[float | None] = None
    tower_knobs: ClassVar[tuple[str, ...]] = ()
    cheap: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def suffix(cls, name: str) -> str | None:
        """Return the suffix by which a file of that name is of this kind, the longest; None where it is not."""
        own = (suffix for suffix in (*cls.suffixes, *cls.others) if name.lower().endswith(f".{suffix}"))
        return max(own, key=len, default=None)

    @abc.abstractmethod
    def sizes(self, backbone: Backbone, knobs: Any) -> tuple[int, ...]:
        """Return the points along each axis of the samples that an encoder is built for, and that are evaluated.

        knobs: of the class `Input`.
        """

    def leading(self, knobs: Any) -> tuple[int, ...]:  # noqa: ARG002
        """Return the points of a token along the first axes; along all others they are the backbone's patch size."""
        return ()

    @abc.abstractmethod
    def views(self, views: Views, sizes: tuple[int, ...], knobs: Any) -> Views:
        """Return an objective's views as those of this modality, each with its size."""

    @abc.abstractmethod
    def whole(self, sizes: tuple[int, ...], share: float, knobs: Any) -> ViewSpec:
        """Return the view that evaluation sees, of which nothing is drawn. share: of the sample, as embed.crop."""

    def tested(self, view: Any, embed: Embed) -> Any:  # noqa: ARG002
        """Return the view of `whole` with as many parts of a sample as evaluation averages over."""
        return view

    @abc.abstractmethod
    def extent(self, data: Data, reading: Any) -> tuple[int, ...]:
        """Return the length of a sample along each axis, from its header. Raises DecodeError for a broken one."""

    @abc.abstractmethod
    def place(self, view: Any, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        """(n, A), (n, place_draws) -> (n, 2A + 1): the part of each sample that a view shows."""

    def follow(
        self, view: Any, extents: NDArray[np.integer], draws: NDArray[np.floating], axes: Sequence[str], boxes: Boxes
    ) -> Boxes:
        """(n, A), (n, place_draws), (n, 3A' + 1) -> (n, 2A + 1): the part that shows what another modality's view does.

        axes: of the other, of as many as A'. boxes: `View.box` of the other view. Along axes of the same name it is the
        same share of the sample, mirrored alike; in time as long as ever, about the same middle as far as the sample
        goes. Along all others it is placed as without the other.
        """
        placed, own, other = self.place(view, extents, draws), len(self.axes), len(axes)
        for axis, name in enumerate(self.axes):
            if name not in axes:
                continue
            at = axes.index(name)
            start, extent = boxes[:, at], boxes[:, other + at]
            if name == TIME:
                shown = placed[:, own + axis]
                room = np.maximum(extents[:, axis] - shown, 0)
                placed[:, axis] = np.clip(start + (extent - shown) / 2, 0, room)
            else:
                scale = extents[:, axis] / boxes[:, 2 * other + 1 + at]
                placed[:, axis], placed[:, own + axis] = start * scale, extent * scale
        if self.axes[-1] == axes[-1]:
            placed[:, 2 * own] = boxes[:, 2 * other]
        return placed

    @abc.abstractmethod
    def raw(self, view: Any, reading: Any) -> tuple[tuple[int, ...], type[np.generic]]:
        """Return the shape (*S, C) and the type of a loaded view."""

    @abc.abstractmethod
    def load(self, data: Data, boxes: Boxes, views: Sequence[Any], reading: Any) -> list[Raw]:
        """(V, 2A + 1) and more -> V views of a sample, decoded once. Raises DecodeError for a damaged one."""

    def fill(
        self, samples: Sequence[Data], boxes: Boxes, views: Sequence[Any], reading: Any, out: Sequence[Raw]
    ) -> list[int]:
        """Load n samples, (n, V, 2A + 1) and more, into V arrays (n, *S, C); return which of them are damaged."""
        bad = []
        for place, (data, own) in enumerate(zip(samples, boxes, strict=True)):
            try:
                for view, raw in zip(out, self.load(data, own, views, reading), strict=True):
                    view[place] = raw
            except DecodeError:
                bad.append(place)
        return bad

    def change_draws(self, view: Any) -> int:  # noqa: ARG002
        """Return how many random numbers `change` takes for a view, uniform in [0, 1); 0: it changes nothing."""
        return 0

    def change(self, raw: Raw, view: Any, reading: Any, draws: NDArray[np.floating]) -> Raw:  # noqa: ARG002
        """(*S, C) as loaded, (change_draws,) -> (*S, C): augmented on the host, by what no device computes."""
        return raw

    def unfit(self, view: Any, reading: Any) -> str:  # noqa: ARG002
        """Return why samples that are read so have no such view; "" where they have."""
        return ""

    def fit(self, samples: "Tensor", view: Any, reading: Any) -> "Tensor":
        """(B, C, *S), samples as a user holds them -> (B, *S, C), as `load` gives them: the part that a view shows.

        Raises SpecError for what is no such batch.
        """
        expected = (reading.channels, *view.lengths)
        if tuple(samples.shape[1:]) != expected:
            raise SpecError(f"expected a batch of samples, {('B', *expected)}, not {tuple(samples.shape)}")
        return samples.movedim(1, -1)

    def begin_thread(self) -> None:  # noqa: B027
        """Prepare a thread that loads samples."""

    @abc.abstractmethod
    def augment_draws(self, view: Any) -> int:
        """Return how many random numbers augmenting a view takes, uniform in [0, 1)."""

    @abc.abstractmethod
    def augment(self, raw: "Tensor", view: Any, draws: "Tensor") -> "Tensor":
        """(B, *S, C) as loaded, (B, augment_draws) on the CPU -> (B, C, *S), augmented"""

    @abc.abstractmethod
    def normalize(self, values: "Tensor", view: Any, stats: Any) -> "Tensor":
        """(B, C, *S), augmented -> (B, C, *S), normalized; perhaps in place"""

    def seen(self, values: "Tensor", patch: "Patch | None") -> "Tokens | Tensor":
        """(B, C, *S), normalized -> what an encoder sees. patch: points a side of the backbone's tokens."""
        from selfsup.parts.patch import seen_by

        return seen_by(values, patch)

    def tower(self, knobs: Any) -> "Encoder":
        """Return the encoder of a modality that has no backbone, at initial weights, a function of torch's seed."""
        raise NotImplementedError

    def vocabulary(self, knobs: Any) -> int:  # noqa: ARG002
        """Return how many values a point can have; 0: any number."""
        return 0

    def contents(self, knobs: Any) -> dict[str, str]:  # noqa: ARG002
        """Return the contents of the files that its part of `input` names, by knob."""
        return {}

    @abc.abstractmethod
    def picture(self, values: "Tensor", stats: Any) -> NDArray[np.uint8]:
        """(B, C, *S), normalized -> (B, H, W, 3), for the eye"""

    def coding(self, reading: Any, **options: Any) -> Any:
        """Return the Coding of files as members of shards, or what has its interface: as they are, without options.

        Raises DataError for an option that the modality does not have.
        """
        if options:
            raise DataError(f"{type(self).__name__.lower()} is packed as it is, without {', '.join(options)}")
        return Coding(self, reading)

    @abc.abstractmethod
    def measure(self, data: Data, reading: Any) -> Any:
        """Return what statistics are made of, of one sample, decoded to its end. Raises DecodeError."""

    def check(self, data: Data, reading: Any) -> None:
        """Raise DecodeError for a sample that cannot be read to its end, at the least cost that tells."""
        self.measure(data, reading)

    def unmeasured(self, stats: Any, knobs: Any) -> Any:  # noqa: ARG002
        """Return the Reading that samples are to be measured by, where these stats are not of what the knobs ask for.

        None where they are.
        """
        return None

    @abc.abstractmethod
    def statistics(self, measures: Sequence[Any], reading: Any) -> Any:
        """Return the Stats of measured samples. Raises DataError where they contradict how they are read."""


def names() -> list[str]:
    """Return the names of all modalities that samples may be of; images first, whose shards may hold other members."""
    kinds = {name: load(name) for name in registry.modules(MODALITIES)}
    own = (name for name, kind in kinds.items() if not (kind.is_companion or kind.kin))
    return sorted(own, key=lambda name: (name != "image", name))


def companions() -> list[str]:
    """Return the names of the modalities that lie beside others, sorted."""
    return [name for name in registry.modules(MODALITIES) if load(name).is_companion]


def member_of(name: str) -> str:
    """Return the modality whose members a kind of data is read from: of most its own. Other names are as they are."""
    return (name in names() and load(name).form_of) or name


@functools.cache
def load(name: str) -> Modality:
    """Return the modality in `modalities/<name>.py`."""
    modality: Modality = registry.only(MODALITIES, name, Modality)()
    return modality


def ready(name: str) -> Modality:
    """Return a modality that can read samples. Raises SelfsupError where what it requires is not installed."""
    modality = load(name)
    if missing := [module for module in modality.requires if importlib.util.find_spec(module) is None]:
        remedy = f"run `pip install 'selfsup[{name}]'` wherever selfsup runs"
        raise SelfsupError(f"{name} needs {' and '.join(missing)}, which is not installed: {remedy}")
    return modality
