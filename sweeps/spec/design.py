"""One study of a sweep file: its spec, and the settings of it that are compared or searched."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfsup.layers import less, said
from selfsup.source import Node, Problem
from selfsup.spec import Spec
from selfsup.sweeps.spec.axes import (
    Axis,
    Base,
    Changes,
    Point,
    factor,
    idle,
    no_factor,
    short_names,
    text,
    value_at,
    written,
)
from selfsup.sweeps.spec.expected import Expected, expected
from selfsup.sweeps.spec.space import Dimension, Wanted, dimensions, stand_in
from selfsup.sweeps.spec.study import SETTING, Factor

AXES = ("ablate", "grid")
MOST_ARMS = 10_000
OWN = "spec values"  # the default beside settings that a search found


@dataclass(frozen=True)
class Setting:
    """An arm to be. values: of every factor, by path; changed: those that are not the default's."""

    name: str
    values: Mapping[str, Any]
    changed: Mapping[str, Any]
    spec: Spec


@dataclass(frozen=True)
class Design:
    """A study to be. settings: the default first. space: what a search varies."""

    name: str
    base: Base
    factors: tuple[Factor, ...]
    grid: tuple[Factor, ...]
    settings: tuple[Setting, ...]
    space: tuple[Dimension, ...]
    expected: Expected
    source: str

    @property
    def default(self) -> Spec:
        return self.settings[0].spec

    def trial(self, values: Mapping[str, Any]) -> Spec:
        """The spec with values of its space, by path. Raises SpecError where they are wrong, or wrong together."""
        return self.base.trial(values)

    def beside(self, named: Mapping[str, Mapping[str, Any]], seeds: tuple[int, ...]) -> "Design":
        """The default and these settings, by name the values of the space, from these seeds; no space any more.

        A setting that is the default is left out.
        """
        told = {"seeds": seeds}
        settings = [Setting("default", {SETTING: OWN}, {}, self.default.model_copy(update=told))]
        for name, values in named.items():
            spec = self.trial(values).model_copy(update=told)
            own = {path: value_at(spec, path) for path in values}
            if changed := {path: value for path, value in own.items() if value != value_at(self.default, path)}:
                settings.append(Setting(name, {SETTING: name}, changed, spec))
        setting = Factor(SETTING, tuple(each.values[SETTING] for each in settings), OWN, None, False)
        return replace(self, factors=(setting,), settings=tuple(settings), space=())


def metrics(spec: Spec) -> tuple[str, ...]:
    return tuple(f"eval/{name}/top1" for name, hyper in spec.evals if hyper is not None)


def design(
    name: str, tree: Node, wanted: Sequence[Wanted], known: Sequence[Problem], problems: list[Problem]
) -> Design | None:
    """None after a mistake, added to `problems`. wanted: what is searched; known: what is wrong with the text."""
    before = len(problems)
    rest = less(tree, *AXES, "expected")
    base = Base(stand_in(rest, wanted, Base(rest, known).knobs), known)
    problems += base.problems
    space = dimensions(base, wanted, problems)
    ablate, grid = (list(_axes(base, section, tree, problems)) for section in AXES)
    groups = [axis.changes for axis in ablate]
    groups += [_crossed(grid)] if grid else []
    points = [point for group in groups for point in base.points(group, problems)]
    factors, crossed = (tuple(_factors(base, axes, points, problems)) for axes in (ablate, grid))
    if base.spec is None or len(problems) > before:
        return None
    settings = tuple(_settings(base.spec, points))
    names = [setting.name for setting in settings]
    numbers, source = expected(tree, names, metrics(base.spec), problems)
    if len(problems) > before:
        return None
    return Design(name or base.spec.method, base, factors, crossed, settings, space, numbers, source)


def _axes(base: Base, section: str, tree: Node, problems: list[Problem]) -> Iterator[Axis]:
    """The axes of a section, less those that cannot be varied."""
    found = said(tree, section)
    axes = written(section, found.node, problems) if found else []
    if section == "grid" and len(axes) == 1 and found:
        problems.append(Problem(found.key, ("grid",), "crosses two or more; one is varied by ablate"))
    if section == "grid" and found and math.prod(len(axis.values) for axis in axes) > MOST_ARMS:
        problems.append(Problem(found.key, ("grid",), f"more than {MOST_ARMS:,} arms"))
        return
    for axis in axes:
        if message := no_factor(axis.path, base.knobs):
            problems.append(Problem(axis.key, axis.where, message))
        else:
            yield axis


def _crossed(grid: Sequence[Axis]) -> list[Changes]:
    return [tuple(change for (change,) in point) for point in itertools.product(*(axis.changes for axis in grid))]


def _factors(base: Base, axes: Sequence[Axis], points: Sequence[Point], problems: list[Problem]) -> Iterator[Factor]:
    """Of those axes that are sound, with the values as specs have them: 1 is 1.0 for a number."""
    held = {id(value): spec for changes, spec in points for _, value in changes}
    for axis in axes:
        if base.spec and all(id(value) in held for value in axis.values):
            values = [value_at(held[id(value)], axis.path) for value in axis.values]
            default = value_at(base.spec, axis.path)
            problems += idle(axis, values, default)
            yield factor(axis.path, values, default, base.knobs.get(axis.path))


def _settings(base: Spec, points: Sequence[Point]) -> Iterator[Setting]:
    """The default, then one change at a time, then what the grid crosses; the same setting once."""
    default = {axis.path: value_at(base, axis.path) for changes, _ in points for axis, _ in changes}
    short = short_names(default)
    yield Setting("default", default, {}, base)
    seen: list[dict[str, Any]] = [{}]
    for changes, spec in points:
        values = {axis.path: value_at(spec, axis.path) for axis, _ in changes}
        changed = {path: value for path, value in values.items() if value != default[path]}
        if changed not in seen:
            seen.append(changed)
            name = ", ".join(f"{short[path]}={text(value)}" for path, value in values.items())
            yield Setting(name, default | changed, changed, spec)
