"""Axes of an ablation: lists of values under `ablate:` and `grid:`, each checked in the spec as if typed with `-s`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfsup import outside
from selfsup.explain import as_yaml
from selfsup.knob import KnobLine, Knobs, Range, knob_lines, non_default
from selfsup.layers import merge, nested, plain
from selfsup.renamed import current_path
from selfsup.source import Entry, Mark, Node, Problem, refusal
from selfsup.spec import WHOLE, Spec, check, known_method, run_type, used
from selfsup.sweeps.spec.study import Factor


@dataclass(frozen=True)
class Axis:
    """A path and its values as they are written. key: the position of the path in its file."""

    path: str
    key: Mark
    values: tuple[Node, ...]

    @property
    def where(self) -> tuple[str, ...]:
        return tuple(self.path.split("."))

    @property
    def changes(self) -> "list[Changes]":
        return [((self, value),) for value in self.values]


Change = tuple[Axis, Node]
Changes = tuple[Change, ...]
Point = tuple[Changes, Spec]


class BaseSpec:
    """A spec that is checked again with some values changed. spec: None where `problems` says what is wrong."""

    def __init__(self, root: Node, known: Sequence[Problem] = ()) -> None:
        root = outside.rooted(root)
        self._known = known
        self.spec, self.problems = check(root, known)
        self.root = self.spec.root if self.spec else root  # with the names of today
        method, _ = known_method(root)
        kind = run_type(method, *used(plain(root))) if method else None
        self.knobs: dict[str, KnobLine] = {knob.path: knob for knob in (knob_lines(kind) if kind else ())}
        self._kind = kind or Knobs

    def current(self, path: str) -> str:
        """Return a path with the names of today."""
        return current_path(path, self._kind)

    def at(self, changes: Changes) -> tuple[Spec | None, list[Problem]]:
        """Return the spec with these values, and the problems that they add."""
        root = self.root
        for axis, value in changes:
            root = merge(root, nested(axis.where, axis.key, value), whole=WHOLE)
        spec, problems = check(root, self._known)
        before = {(problem.where, problem.message) for problem in self.problems}
        return spec, [problem for problem in problems if (problem.where, problem.message) not in before]

    def trial(self, values: Mapping[str, Any]) -> Spec:
        """Return the spec with these values, by path. Raises SpecError where they are invalid, alone or together."""
        mark = Mark("a trial with " + ", ".join(f"{path}={text(value)}" for path, value in values.items()))
        spec, problems = self.at(tuple((Axis(path, mark, ()), _node(value, mark)) for path, value in values.items()))
        if spec is None:
            raise refusal(replace(problem, mark=mark) for problem in problems)
        return spec

    def points(self, group: Sequence[Changes], problems: list[Problem]) -> list[Point]:
        """Return the valid specs under these changes, and add problems to `problems`."""
        checked = [self.at(changes) for changes in group]
        problems += _located(group, [new_problems for _, new_problems in checked])
        return [(changes, spec) for changes, (spec, _) in zip(group, checked, strict=True) if spec]


def _located(group: Sequence[Changes], problems_of_changes: Sequence[Sequence[Problem]]) -> Iterator[Problem]:
    """Yield each problem once, at the place that is to blame.

    That is the path where every value has the problem, the value where it is invalid alone, or else the value with its
    arm as a hint.
    """
    counts = Counter((problem.where, problem.message) for problems in problems_of_changes for problem in problems)
    arms: dict[Problem, list[str]] = {}
    for changes, problems in zip(group, problems_of_changes, strict=True):
        at = {axis.key: value.mark for axis, value in changes}
        own = {(axis.where, value.mark) for axis, value in changes}
        for problem in problems:
            if counts[problem.where, problem.message] == len(group) or (problem.where, problem.mark) in own:
                arms[problem] = []
            else:
                arms.setdefault(replace(problem, mark=at.get(problem.mark, problem.mark)), []).append(
                    _arm_name(changes)
                )
    for problem, names in arms.items():
        yield replace(problem, hint=f"in the arm {names[0]}") if len(names) == 1 else problem


def _arm_name(changes: Changes) -> str:
    return ", ".join(f"{axis.where[-1]}={text(plain(value))}" for axis, value in changes)


def read_axes(section: str, root: Node, problems: list[Problem]) -> list[Axis]:
    """Return the axes of a section, with paths dotted, nested, or both; of two for one path the last counts."""
    if not isinstance(root.value, dict):
        message = "expected paths and values, such as {hyper.mask_ratio: [0.5, 0.75]}"
        problems.append(Problem(root.mark, (section,), message))
        return []
    return list({axis.path: axis for axis in _walk(root, (section,), problems)}.values())


def _walk(root: Node, above: tuple[str, ...], problems: list[Problem]) -> Iterator[Axis]:
    assert isinstance(root.value, dict)
    for key, entry in root.value.items():
        where, value = (*above, *key.split(".")), entry.node.value
        if isinstance(value, dict):
            yield from _walk(entry.node, where, problems)
        elif isinstance(value, tuple) and value:
            yield Axis(".".join(where[1:]), entry.key, value)
        else:
            problems.append(
                Problem(entry.node.mark, where, f"expected a list of values, not {as_yaml(plain(entry.node))}")
            )


def why_no_factor(path: str, knobs: Mapping[str, KnobLine]) -> str:
    """Return why a path cannot be varied, whatever the values; "" where it can, or is unknown."""
    inner = [name for name in knobs if name.startswith(f"{path}.")]
    if path == "method":
        return "methods differ in their knobs: make each of them one of the studies"
    if path in ("seed", "seeds"):
        return "seeds repeat every arm, and are no factor"
    if path in ("name", "baselines") or (path in knobs and not knobs[path].result):
        return "changes no result, and so is no factor"
    if inner and tuple(path.split(".")) not in WHOLE:
        return f"a group of knobs; vary one of them, such as {inner[0]}"
    return ""


def factor(path: str, values: Sequence[Any], default: Any, knob: KnobLine | None) -> Factor:
    """Build a factor: the default among its values, numbers in order."""
    numeric = all(type(value) in (int, float) for value in (*values, default))
    all_values = list(values) if default in values else [default, *values]
    log = numeric and knob is not None and isinstance(knob.sweep, Range) and knob.sweep.log
    symbol = knob.symbol if knob else None
    return Factor(path, tuple(sorted(all_values) if numeric else all_values), default, symbol, log)


def idle_problems(axis: Axis, values: Sequence[Any], default: Any) -> Iterator[Problem]:
    """Yield problems of an axis that compares nothing: a repeated value, or the default alone."""
    yield from repetitions(axis, values)
    if list(values) == [default]:
        message = f"nothing to compare: its only value, {text(default)}, is the default"
        yield Problem(axis.values[0].mark, axis.where, message)


def repetitions(axis: Axis, values: Sequence[Any]) -> Iterator[Problem]:
    """Yield a problem per repeated value. values: of the axis, as specs hold them."""
    for number, value in enumerate(values):
        if value in values[:number]:
            yield Problem(axis.values[number].mark, axis.where, f"the value {text(value)} twice")


def value_at(spec: Spec, path: str) -> Any:
    """Return a spec's value at a path as JSON data; None where a group on the way is null."""
    value: Any = spec
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return non_default(value) if isinstance(value, Knobs) else value


def text(value: Any) -> str:
    """Write a value as names of arms show it, without quotes."""
    return value if isinstance(value, str) else as_yaml(value)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """-> path: its last word, or all of it where two paths share that word."""
    last = {path: path.rpartition(".")[2] for path in paths}
    number = Counter(last.values())
    return {path: name if number[name] == 1 else path for path, name in last.items()}


def _node(value: Any, mark: Mark) -> Node:
    """Build the node of a value that stands in no file."""
    if isinstance(value, dict):
        return Node(mark, {name: Entry(mark, _node(inner, mark)) for name, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return Node(mark, tuple(_node(item, mark) for item in value))
    return Node(mark, value)
