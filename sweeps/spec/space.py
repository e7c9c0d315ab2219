"""The space of a search: `{search: ...}` in the place of a spec's value.

    hyper: {mask_ratio: {search: auto}}                              # the knob's own range
    optim: {lr: {search: {low: 1e-4, high: 1e-2, log: true}}}
    train: {batch: {search: [64, 128]}}

The default is the value without the search: that of an extended file, or else the knob's.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfsup.knob import REQUIRED, Choice, KnobLine, Range
from selfsup.layers import find, less, merge, nested, plain
from selfsup.source import Entry, Mark, Node, Problem
from selfsup.spec import WHOLE
from selfsup.sweeps.spec.axes import (
    Axis,
    BaseSpec,
    repetitions,
    text,
    value_at,
    why_no_factor,
)


@dataclass(frozen=True)
class Dimension:
    """A knob to search over. integer: its values are whole numbers."""

    path: str
    range: Range | Choice
    integer: bool

    def __str__(self) -> str:
        """Write `0.4 to 0.9`, `0.0001 to 0.01, log`, `32, 64`."""
        if isinstance(self.range, Choice):
            return ", ".join(map(text, self.range.values))
        return f"{self.range.low:g} to {self.range.high:g}{', whole' * self.integer}{', log' * self.range.log}"


@dataclass(frozen=True)
class SearchedKnob:
    """`{search: request}` as it is written. key: the position of the knob in its file."""

    where: tuple[str, ...]
    key: Mark
    request: Node

    @property
    def axis(self) -> Axis:
        """Return the values that are written: all of a list, the ends of a range, none for auto."""
        return Axis(".".join(self.where), self.key, tuple(self._written()))

    def _written(self) -> Iterator[Node]:
        match self.request.value:
            case tuple(items):
                yield from items
            case dict(ends):
                yield from (ends[name].node for name in ("low", "high") if name in ends)


def take(layers: Sequence[Node]) -> tuple[list[Node], list[SearchedKnob]]:
    """Split searches from layers: -> layers without searched values, and the searched knobs.

    Each knob keeps its value in the layers below; a value in a layer above ends a search.
    """
    bare, searched = [], list[SearchedKnob]()
    for layer in layers:
        own_searches = list(_searched(layer, (), layer.mark))
        searched = [knob for knob in searched if not find(layer, knob.where)] + own_searches
        bare.append(functools.reduce(_without, (knob.where for knob in own_searches), layer))
    return bare, searched


def _searched(node: Node, where: tuple[str, ...], key: Mark) -> Iterator[SearchedKnob]:
    if not isinstance(node.value, dict):
        return
    if where and node.value.keys() == {"search"}:
        yield SearchedKnob(where, key, node.value["search"].node)
        return
    for name, entry in node.value.items():
        yield from _searched(entry.node, (*where, name), entry.key)


def _without(root: Node, where: tuple[str, ...]) -> Node:
    assert isinstance(root.value, dict)
    name, *inner = where
    if not inner:
        return less(root, name)
    entry = root.value[name]
    return Node(root.mark, root.value | {name: Entry(entry.key, _without(entry.node, tuple(inner)))})


def with_placeholders(root: Node, searched: Sequence[SearchedKnob], knobs: Mapping[str, KnobLine]) -> Node:
    """Return a complete spec: each searched knob that has no value gets one of its range."""
    for knob in searched:
        description = knobs.get(knob.axis.path)
        if not find(root, knob.where) and (description is None or description.default is REQUIRED):
            root = merge(root, nested(knob.where, knob.key, _placeholder(knob, description)), whole=WHOLE)
    return root


def _placeholder(knob: SearchedKnob, description: KnobLine | None) -> Node:
    """Return a value that may be drawn; null for an unknown knob, which the check of the spec reports."""
    match description.sweep if description else None:
        case _ if knob.axis.values:
            return knob.axis.values[0]
        case Range(low=low):
            return Node(knob.request.mark, low)
        case Choice(values=values):
            return Node(knob.request.mark, values[0])
    return Node(knob.request.mark, None)


def dimensions_of(base: BaseSpec, searched: Sequence[SearchedKnob], problems: list[Problem]) -> tuple[Dimension, ...]:
    """Return the dimensions of the space, with every written value checked."""
    space = []
    for knob in searched:
        axis, description = knob.axis, base.knobs.get(knob.axis.path)
        if message := why_no_factor(axis.path, base.knobs):
            problems.append(Problem(knob.key, knob.where, message))
            continue
        if description is None and knob.where not in WHOLE:
            continue  # no such knob, as the base tells
        request = _range(plain(knob.request), description.sweep if description else None)
        if isinstance(request, str):
            problems.append(Problem(knob.request.mark, (*knob.where, "search"), request))
            continue
        points = base.points(axis.changes, problems)
        if isinstance(request, Choice) and len(points) == len(axis.values):
            problems += repetitions(axis, [value_at(spec, axis.path) for _, spec in points])  # 1 is 1.0 for a number
        space.append(Dimension(axis.path, request, description is not None and description.type.startswith("integer")))
    return tuple(space)


def _range(request: Any, own: Range | Choice | None) -> Range | Choice | str:
    """Return the range that is requested, or what is wrong with the request."""
    match request:
        case "auto":
            return own or "the knob has no range of its own; say {low: , high: } or a list"
        case tuple():
            return Choice(*request) if len(request) > 1 else "expected two different values or more"
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest.keys() - {"log"}:
            log = rest.get("log", False)
            return _problem_of_ends(low, high, log) or Range(low, high, bool(log))
    return "expected auto, {low: , high: , log: }, or a list of values"


def _problem_of_ends(low: float, high: float, log: object) -> str:
    if not isinstance(log, bool):
        return "log: expected true | false"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"low is {low:g} and high is {high:g}: both must be finite"
    if low >= high:
        return f"low is {low:g} and high is {high:g}: there is nothing between them"
    return f"no logarithm of {low:g}; low must be > 0" if log and low <= 0 else ""
