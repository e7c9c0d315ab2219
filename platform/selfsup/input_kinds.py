"""The kinds of data of a run, as the sections `input` and `towers` of its spec and its objective ask for them."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import create_model

from selfsup.knob import Knobs, knob
from selfsup.modality import companions, load, names
from selfsup.sections import Backbone, InputShape
from selfsup.views import Beside, Views, ViewSpec


@functools.cache
def inputs() -> type[Knobs]:
    """Return the section `input` of a spec: the knobs of each modality that has some, under its name."""
    own = {name: load(name) for name in (*names(), *companions()) if load(name).Input is not Knobs}
    docs = {name: (inspect.getdoc(modality) or "").partition("\n\n")[0] for name, modality in own.items()}
    fields: Any = {name: (modality.Input | None, knob(None, docs[name])) for name, modality in own.items()}
    return create_model("Input", __base__=Knobs, **fields)


class InputKinds(NamedTuple):
    """The kinds of data of a run. name, knobs: of its samples, which the backbone reads.

    beside: of what a method learns from, too, modality -> knobs. towers: the backbones that a spec names for these.
    """

    name: str
    knobs: Any
    beside: Mapping[str, Any] = MappingProxyType({})
    towers: Mapping[str, Backbone] = MappingProxyType({})


@functools.cache
def towers() -> type[Knobs]:
    """Return the section `towers` of a spec: a backbone of each modality that has none of its own."""
    fields: Any = {name: (Backbone | None, knob(None, f"the encoder of {name} beside samples")) for name in names()}
    return create_model("Towers", __base__=Knobs, **fields)


def chosen(section: Knobs, others: Sequence[str] = (), read: Sequence[str] | None = None) -> InputKinds:
    """Return the kinds of data that a section `input` asks for; images where it says nothing of samples.

    others: what a method can learn from beside samples. read: those of them that it does; None: all.
    """
    asked = [(name, knobs) for name, knobs in section if knobs is not None and name not in others]
    own = [(name, knobs) for name, knobs in asked if not load(name).is_companion]
    name, knobs = own[0] if own else ("image", load("image").Input())
    fields = others if read is None else read
    return InputKinds(name, knobs, {other: getattr(section, other, None) or load(other).Input() for other in fields})


def idle(kinds: InputKinds) -> list[str]:
    """Return the settings of a spec that change nothing of any of these kinds of data; of companions none does."""
    others = [load(name) for name in kinds.beside if not load(name).is_companion]
    return [path for path in load(kinds.name).idle if all(path in other.idle for other in others)]


def sizes_of(kinds: InputKinds, backbone: Backbone) -> tuple[int, ...]:
    """Return the points along each axis of a sample."""
    return load(kinds.name).sizes(backbone, kinds.knobs)


def leading_of(kinds: InputKinds) -> tuple[int, ...]:
    """Return the points of a token along the first axes."""
    return load(kinds.name).leading(kinds.knobs)


def views_of(views: Views, kinds: InputKinds, backbone: Backbone) -> Views:
    """Return an objective's views as those of the modalities of a run, each with its size."""
    own = tuple(view for view in views.specs if not isinstance(view, Beside))
    made = load(kinds.name).views(replace(views, specs=own), sizes_of(kinds, backbone), kinds.knobs)
    others = [_beside(view, kinds, backbone) for view in views.specs[len(own) :]]  # an objective asks for them last
    return replace(made, specs=(*made.specs, *others))


def _beside(view: Beside, kinds: InputKinds, backbone: Backbone) -> ViewSpec:
    kind, knobs = load(view.field), kinds.beside[view.field]
    sizes = kind.sizes(kinds.towers.get(view.field, backbone), knobs)
    [made] = kind.views(Views((replace(view.crop, mask=view.mask),)), sizes, knobs).specs
    own: ViewSpec = replace(made, of=view.of)
    return own


def whole_of(kinds: InputKinds, backbone: Backbone, share: float) -> ViewSpec:
    """Return the view of samples that evaluation sees."""
    return load(kinds.name).whole(sizes_of(kinds, backbone), share, kinds.knobs)


def shape_of(kinds: InputKinds, backbone: Backbone, channels: int) -> InputShape:
    """Return the shape of samples of an encoder. channels: of the data."""
    return InputShape(channels, sizes_of(kinds, backbone), leading_of(kinds), load(kinds.name).in_groups)


def shape_beside(
    name: str, kinds: InputKinds, backbone: Backbone, channels: int, *, one_trunk: bool = False
) -> InputShape:
    """Return the shape of what lies beside samples: of its tower's backbone, or else of the run's.

    one_trunk: whether the run's reads both, and so has to know how many values there are.
    """
    kind, knobs = load(name), kinds.beside[name]
    sizes, vocabulary = kind.sizes(kinds.towers.get(name, backbone), knobs), kind.vocabulary(knobs) if one_trunk else 0
    return InputShape(channels, sizes, kind.leading(knobs), kind.in_groups, vocabulary)
