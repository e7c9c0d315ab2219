"""Specs that say a knob by its first name, read as if they said the name of today."""

import functools

from selfsup.knob import Knobs, former_names, group
from selfsup.progress import say
from selfsup.source import Entry, Mark, Node, Problem, Where, spelled


def current(root: Node, kind: type[Knobs], problems: list[Problem]) -> Node:
    """Return the tree with the names of today, and say so once of each that was another.

    Of both names for one knob the one that stands nearer counts: the command line's, then the file's own. Both at once
    in one place are added to `problems`.
    """
    return _current(root, kind, (), root.mark, problems)


def current_path(path: str, kind: type[Knobs]) -> str:
    """Return the path of a knob, such as hyper.mask_ratio, with the names of today."""
    names: list[str] = []
    inner: type[Knobs] | None = kind
    for part in path.split("."):
        names.append(former_names(inner).get(part, part) if inner else part)
        inner = _group(inner, names[-1])
    return ".".join(names)


def _current(node: Node, kind: type[Knobs] | None, where: Where, top: Mark, problems: list[Problem]) -> Node:
    if kind is None or not isinstance(node.value, dict):
        return node
    entries: dict[str, Entry] = {}
    for old, entry in node.value.items():
        name = former_names(kind).get(old, old)
        if name != old:
            _remark(f"{entry.key}: {spelled((*where, old))} is called {name} now; both names are read")
        if name in entries and _rank(entries[name].key, top) == _rank(entry.key, top):
            problems.append(Problem(entry.key, (*where, old), f"one knob under two names; say {name} alone"))
        if name not in entries or _rank(entries[name].key, top) < _rank(entry.key, top):
            inner = _current(entry.node, _group(kind, name), (*where, name), top, problems)
            entries[name] = Entry(entry.key, inner)
    return Node(node.mark, entries)


def _group(kind: type[Knobs] | None, name: str) -> type[Knobs] | None:
    return group(kind.model_fields[name].annotation) if kind and name in kind.model_fields else None


def _rank(key: Mark, top: Mark) -> int:
    return 2 if not key.in_file else int(key.origin == top.origin)


@functools.cache
def _remark(line: str) -> None:
    say(line)
