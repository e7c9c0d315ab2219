"""Lists of values under `ablate:` and `grid:`, each value checked in a spec that has it, as if typed with `-s`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfsup.evaluations import uses
from selfsup.explain import shown
from selfsup.knob import Described, Knobs, Range, described, non_default
from selfsup.layers import merge, nested, plain
from selfsup.source import Entry, Mark, Node, Problem, refusal
from selfsup.spec import WHOLE, Spec, check, methods, run_type
from selfsup.sweeps.spec.study import Factor


@dataclass(frozen=True)
class Axis:
    """A path and its values as they are written. key: the place of the path."""

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


class Base:
    """A spec, and what becomes of it when some of its values change. spec: None where `problems` says what is wrong."""

    def __init__(self, root: Node, known: Sequence[Problem] = ()) -> None:
        self._root, self._known = root, known
        self.spec, self.problems = check(root, known)
        tree = plain(root)
        method = tree.get("method")
        self.knobs: dict[str, Described] = {
            line.path: line for line in (described(run_type(method, uses(tree))) if method in methods() else ())
        }

    def at(self, changes: Changes) -> tuple[Spec | None, list[Problem]]:
        """The spec with these values, and what is newly wrong with it."""
        root = self._root
        for axis, value in changes:
            root = merge(root, nested(axis.where, axis.key, value), whole=WHOLE)
        spec, problems = check(root, self._known)
        before = {(problem.where, problem.message) for problem in self.problems}
        return spec, [problem for problem in problems if (problem.where, problem.message) not in before]

    def trial(self, values: Mapping[str, Any]) -> Spec:
        """The spec with these values, by path. Raises SpecError where they are wrong, or wrong together."""
        mark = Mark("a trial with " + ", ".join(f"{path}={text(value)}" for path, value in values.items()))
        spec, problems = self.at(tuple((Axis(path, mark, ()), _node(value, mark)) for path, value in values.items()))
        if spec is None:
            raise refusal(replace(problem, mark=mark) for problem in problems)
        return spec

    def points(self, group: Sequence[Changes], problems: list[Problem]) -> list[Point]:
        """The spec under each of these changes. What is wrong with one is added to `problems`."""
        found = [self.at(changes) for changes in group]
        problems += _placed(group, [wrong for _, wrong in found])
        return [(changes, spec) for changes, (spec, _) in zip(group, found, strict=True) if spec]


def _placed(group: Sequence[Changes], found: Sequence[Sequence[Problem]]) -> Iterator[Problem]:
    """Each once: at the path if it is so whatever the values; at the value if that is wrong; else with its arm too."""
    number = Counter((problem.where, problem.message) for problems in found for problem in problems)
    arms: dict[Problem, list[str]] = {}
    for changes, problems in zip(group, found, strict=True):
        at = {axis.key: value.mark for axis, value in changes}
        own = {(axis.where, value.mark) for axis, value in changes}
        for problem in problems:
            if number[problem.where, problem.message] == len(group) or (problem.where, problem.mark) in own:
                arms[problem] = []
            else:
                arms.setdefault(replace(problem, mark=at.get(problem.mark, problem.mark)), []).append(_arm(changes))
    for problem, names in arms.items():
        yield replace(problem, hint=f"in the arm {names[0]}") if len(names) == 1 else problem


def _arm(changes: Changes) -> str:
    return ", ".join(f"{axis.where[-1]}={text(plain(value))}" for axis, value in changes)


def written(section: str, root: Node, problems: list[Problem]) -> list[Axis]:
    """The axes of a section, with paths dotted, nested, or both. Of two for one path the last counts."""
    if not isinstance(root.value, dict):
        message = "expected paths and values, such as {hyper.mask_ratio: [0.5, 0.75]}"
        problems.append(Problem(root.mark, (section,), message))
        return []
    return list({axis.path: axis for axis in _axes(root, (section,), problems)}.values())


def _axes(root: Node, above: tuple[str, ...], problems: list[Problem]) -> Iterator[Axis]:
    assert isinstance(root.value, dict)
    for key, entry in root.value.items():
        where, value = (*above, *key.split(".")), entry.node.value
        if isinstance(value, dict):
            yield from _axes(entry.node, where, problems)
        elif isinstance(value, tuple) and value:
            yield Axis(".".join(where[1:]), entry.key, value)
        else:
            problems.append(
                Problem(entry.node.mark, where, f"expected a list of values, not {shown(plain(entry.node))}")
            )


def no_factor(path: str, knobs: Mapping[str, Described]) -> str:
    """Why a path cannot be varied, whatever the values; "" where it can, or is unknown."""
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


def factor(path: str, values: Sequence[Any], default: Any, line: Described | None) -> Factor:
    numeric = all(type(value) in (int, float) for value in (*values, default))
    whole = list(values) if default in values else [default, *values]
    log = numeric and line is not None and isinstance(line.sweep, Range) and line.sweep.log
    symbol = line.symbol if line else None
    return Factor(path, tuple(sorted(whole) if numeric else whole), default, symbol, log)


def idle(axis: Axis, values: Sequence[Any], default: Any) -> Iterator[Problem]:
    """A value twice; nothing but the default."""
    yield from twice(axis, values)
    if list(values) == [default]:
        message = f"nothing to compare: its one value, {text(default)}, is the default"
        yield Problem(axis.values[0].mark, axis.where, message)


def twice(axis: Axis, values: Sequence[Any]) -> Iterator[Problem]:
    """values: of the axis, as specs have them."""
    for number, value in enumerate(values):
        if value in values[:number]:
            yield Problem(axis.values[number].mark, axis.where, f"the value {text(value)} twice")


def value_at(spec: Spec, path: str) -> Any:
    """JSON-able; None where a group on the way is null."""
    value: Any = spec
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return non_default(value) if isinstance(value, Knobs) else value


def text(value: Any) -> str:
    """As arms' names and tables have it: without quotes."""
    return value if isinstance(value, str) else shown(value)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The last word of each, or all of it where two have the same."""
    last = {path: path.rpartition(".")[2] for path in paths}
    number = Counter(last.values())
    return {path: name if number[name] == 1 else path for path, name in last.items()}


def _node(value: Any, mark: Mark) -> Node:
    """A value that no file says."""
    if isinstance(value, dict):
        return Node(mark, {name: Entry(mark, _node(inner, mark)) for name, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return Node(mark, tuple(_node(item, mark) for item in value))
    return Node(mark, value)
