"""The design of one study of a sweep file: its spec, and the settings of it that are compared or searched."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfsup import outside
from selfsup.evaluations import listed, scales
from selfsup.evaluator import Metric
from selfsup.layers import less, written
from selfsup.source import Node, Problem
from selfsup.spec import Spec
from selfsup.sweeps.spec.axes import (
    Axis,
    BaseSpec,
    Changes,
    Point,
    factor,
    idle_problems,
    read_axes,
    short_names,
    text,
    value_at,
    why_no_factor,
)
from selfsup.sweeps.spec.expected import Expected, expected
from selfsup.sweeps.spec.space import Dimension, SearchedKnob, dimensions_of, with_placeholders
from selfsup.sweeps.spec.study import SETTING, Factor

AXES = ("ablate", "grid")
MOST_ARMS = 10_000
SPEC_VALUES = "spec values"  # the default beside settings that a search found


@dataclass(frozen=True)
class Setting:
    """An arm that is not planned yet. values: of every factor, by path; changed: those that differ from the default."""

    name: str
    values: Mapping[str, Any]
    changed: Mapping[str, Any]
    spec: Spec


@dataclass(frozen=True)
class Design:
    """A study that is not planned yet. settings: the default first. space: the dimensions that a search varies."""

    name: str
    base: BaseSpec
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
        """Return the spec with values of its space, by path.

        Raises SpecError where they are invalid, alone or together.
        """
        return self.base.trial(values)

    def beside(self, named: Mapping[str, Mapping[str, Any]], seeds: tuple[int, ...]) -> "Design":
        """Return a design of the default and these settings, from these seeds and without a space.

        named: setting -> values of the space by path; one that equals the default is left out.
        """
        update = {"seeds": seeds}
        settings = [Setting("default", {SETTING: SPEC_VALUES}, {}, self.default.model_copy(update=update))]
        for name, values in named.items():
            spec = self.trial(values).model_copy(update=update)
            new_values = {path: value_at(spec, path) for path in values}
            if changed := {path: value for path, value in new_values.items() if value != value_at(self.default, path)}:
                settings.append(Setting(name, {SETTING: name}, changed, spec))
        names = tuple(setting.values[SETTING] for setting in settings)
        factor = Factor(SETTING, names, SPEC_VALUES, None, False)
        return replace(self, factors=(factor,), settings=tuple(settings), space=())


def metrics(spec: Spec) -> dict[str, Metric]:
    """Return the metrics of the spec's evaluations that tables show, by name."""
    by_name = scales(spec.evals, listed(spec.evals))
    return {name: metric for name, metric in by_name.items() if metric.headline}


def design(
    name: str, tree: Node, searched: Sequence[SearchedKnob], known: Sequence[Problem], problems: list[Problem]
) -> Design | None:
    """Check and build the design of a study; None after a problem, which is added to `problems`.

    searched: knobs with a `search`; known: problems of the text.
    """
    before = len(problems)
    bare = BaseSpec(less(tree, *AXES, "expected"), known)
    searched = [replace(knob, where=tuple(bare.current(".".join(knob.where)).split("."))) for knob in searched]
    base = BaseSpec(with_placeholders(bare.root, searched, bare.knobs), known)
    problems += base.problems
    space = dimensions_of(base, searched, problems)
    ablate, grid = (list(_axes(base, section, tree, problems)) for section in AXES)
    groups = [axis.changes for axis in ablate]
    groups += [_combinations(grid)] if grid else []
    points = [point for group in groups for point in base.points(group, problems)]
    factors, crossed = (tuple(_factors(base, axes, points, problems)) for axes in (ablate, grid))
    if base.spec is None or len(problems) > before:
        return None
    settings = tuple(_settings(base.spec, points))
    names = [setting.name for setting in settings]
    numbers, source = expected(tree, names, tuple(metrics(base.spec)), problems)
    if len(problems) > before:
        return None
    return Design(name or outside.short(base.spec.method), base, factors, crossed, settings, space, numbers, source)


def _axes(base: BaseSpec, section: str, tree: Node, problems: list[Problem]) -> Iterator[Axis]:
    """Yield the axes of a section; one that cannot be varied is a problem."""
    entry = written(tree, section)
    axes = read_axes(section, entry.node, problems) if entry else []
    axes = [replace(axis, path=base.current(axis.path)) for axis in axes]
    if section == "grid" and len(axes) == 1 and entry:
        problems.append(Problem(entry.key, ("grid",), "a grid crosses two factors or more; vary one by ablate"))
    if section == "grid" and entry and math.prod(len(axis.values) for axis in axes) > MOST_ARMS:
        problems.append(Problem(entry.key, ("grid",), f"more than {MOST_ARMS:,} arms"))
        return
    for axis in axes:
        if message := why_no_factor(axis.path, base.knobs):
            problems.append(Problem(axis.key, axis.where, message))
        else:
            yield axis


def _combinations(grid: Sequence[Axis]) -> list[Changes]:
    return [tuple(change for (change,) in point) for point in itertools.product(*(axis.changes for axis in grid))]


def _factors(
    base: BaseSpec, axes: Sequence[Axis], points: Sequence[Point], problems: list[Problem]
) -> Iterator[Factor]:
    """Yield the factors of valid axes, with the values as specs hold them: 1 is 1.0 for a number."""
    specs = {id(value): spec for changes, spec in points for _, value in changes}
    for axis in axes:
        if base.spec and all(id(value) in specs for value in axis.values):
            values = [value_at(specs[id(value)], axis.path) for value in axis.values]
            default = value_at(base.spec, axis.path)
            problems += idle_problems(axis, values, default)
            yield factor(axis.path, values, default, base.knobs.get(axis.path))


def _settings(base: Spec, points: Sequence[Point]) -> Iterator[Setting]:
    """Yield the default, then one change at a time, then the combinations of the grid; equal settings once."""
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
