"""`{search: ...}` where a value of a spec would stand: the space of a search.

    hyper: {mask_ratio: {search: auto}}                              # the knob's own range
    optim: {lr: {search: {low: 1e-4, high: 1e-2, log: true}}}
    train: {batch: {search: [64, 128]}}

The default is what the spec says without the search: the value that an extended file has, or else the knob's.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfsup.knob import REQUIRED, Choice, Described, Range
from selfsup.layers import find, less, merge, nested, plain
from selfsup.source import Entry, Mark, Node, Problem
from selfsup.spec import WHOLE
from selfsup.sweeps.spec.axes import (
    Axis,
    Base,
    no_factor,
    text,
    twice,
    value_at,
)


@dataclass(frozen=True)
class Dimension:
    """A knob to search over. integer: both ends of its Range are, and so is every value."""

    path: str
    range: Range | Choice
    integer: bool

    def __str__(self) -> str:
        """`0.4 to 0.9`, `0.0001 to 0.01, log`, `32, 64`"""
        if isinstance(self.range, Choice):
            return ", ".join(map(text, self.range.values))
        return f"{self.range.low:g} to {self.range.high:g}{', whole' * self.integer}{', log' * self.range.log}"


@dataclass(frozen=True)
class Wanted:
    """`{search: asked}` as it is written. key: the place of the knob."""

    where: tuple[str, ...]
    key: Mark
    asked: Node

    @property
    def axis(self) -> Axis:
        """The values that are written: of a list, all; of a range, its ends; of auto, none."""
        return Axis(".".join(self.where), self.key, tuple(self._written()))

    def _written(self) -> Iterator[Node]:
        match self.asked.value:
            case tuple(items):
                yield from items
            case dict(ends):
                yield from (ends[name].node for name in ("low", "high") if name in ends)


def take(layers: Sequence[Node]) -> tuple[list[Node], list[Wanted]]:
    """The layers without their searched values, so that each keeps its value in the layers below; and those.

    A value in a layer above ends a search.
    """
    bare, wanted = [], list[Wanted]()
    for layer in layers:
        own = list(_wanted(layer, (), layer.mark))
        wanted = [each for each in wanted if not find(layer, each.where)] + own
        bare.append(functools.reduce(_without, (each.where for each in own), layer))
    return bare, wanted


def _wanted(node: Node, where: tuple[str, ...], key: Mark) -> Iterator[Wanted]:
    if not isinstance(node.value, dict):
        return
    if where and node.value.keys() == {"search"}:
        yield Wanted(where, key, node.value["search"].node)
        return
    for name, entry in node.value.items():
        yield from _wanted(entry.node, (*where, name), entry.key)


def _without(root: Node, where: tuple[str, ...]) -> Node:
    assert isinstance(root.value, dict)
    name, *inner = where
    if not inner:
        return less(root, name)
    entry = root.value[name]
    return Node(root.mark, root.value | {name: Entry(entry.key, _without(entry.node, tuple(inner)))})


def stand_in(root: Node, wanted: Sequence[Wanted], knobs: Mapping[str, Described]) -> Node:
    """The tree with a value for each that is searched and has no other, so that it is a whole spec."""
    for each in wanted:
        line = knobs.get(each.axis.path)
        if not find(root, each.where) and (line is None or line.default is REQUIRED):
            root = merge(root, nested(each.where, each.key, _first(each, line)), whole=WHOLE)
    return root


def _first(wanted: Wanted, line: Described | None) -> Node:
    """Of those that may be drawn; null of a knob that does not exist, for that to be told."""
    match line.sweep if line else None:
        case _ if wanted.axis.values:
            return wanted.axis.values[0]
        case Range(low=low):
            return Node(wanted.asked.mark, low)
        case Choice(values=values):
            return Node(wanted.asked.mark, values[0])
    return Node(wanted.asked.mark, None)


def dimensions(base: Base, wanted: Sequence[Wanted], problems: list[Problem]) -> tuple[Dimension, ...]:
    """What is searched, every value of it checked that is written."""
    found = []
    for each in wanted:
        axis, line = each.axis, base.knobs.get(each.axis.path)
        if message := no_factor(axis.path, base.knobs):
            problems.append(Problem(each.key, each.where, message))
            continue
        if line is None and each.where not in WHOLE:
            continue  # no such knob, as the base tells
        asked = _range(plain(each.asked), line.sweep if line else None)
        if isinstance(asked, str):
            problems.append(Problem(each.asked.mark, (*each.where, "search"), asked))
            continue
        points = base.points(axis.changes, problems)
        if isinstance(asked, Choice) and len(points) == len(axis.values):
            problems += twice(axis, [value_at(spec, axis.path) for _, spec in points])  # 1 is 1.0 for a number
        found.append(Dimension(axis.path, asked, line is not None and line.type.startswith("integer")))
    return tuple(found)


def _range(asked: Any, own: Range | Choice | None) -> Range | Choice | str:
    """What is searched, or what is wrong with how it is asked."""
    match asked:
        case "auto":
            return own or "the knob has no range of its own; say {low: , high: } or a list"
        case tuple():
            return Choice(*asked) if len(asked) > 1 else "expected two different values or more"
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest.keys() - {"log"}:
            log = rest.get("log", False)
            return _wrong_ends(low, high, log) or Range(low, high, bool(log))
    return "expected auto, {low: , high: , log: }, or a list of values"


def _wrong_ends(low: float, high: float, log: object) -> str:
    if not isinstance(log, bool):
        return "log: expected true | false"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"low is {low:g} and high is {high:g}: both must be finite"
    if low >= high:
        return f"low is {low:g} and high is {high:g}: there is nothing between them"
    return f"no logarithm of {low:g}; low must be > 0" if log and low <= 0 else ""
