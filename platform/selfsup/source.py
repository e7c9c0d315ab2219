"""YAML with places: every key and value keeps its line and column, so that a mistake is shown in place.

Scalars are those of YAML 1.2's core schema, less its traps: 1e-3 is a number; yes, off, dates and 12:30 are words; only
true and false are truth values; a leading zero (010: eight, or ten?), a tag and a key written twice are mistakes.
So is input that no spec needs and that breaks other tools: endless depth or size, lone surrogates, NUL.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from selfsup.errors import SpecError

Where = tuple[str | int, ...]  # ("optim", "betas", 1) is optim.betas[1]
DEEPEST, MOST, LONGEST = 32, 100_000, 100  # levels and values of a text, an alias's counted each time; digits


@dataclass(frozen=True)
class Mark:
    """A place: in a file (line and column from 0, the text of that line), or a whole override, which has no line.

    origin: the file's path as the user wrote it, the name of a shipped file, or the override. shipped: where that lies.
    """

    origin: str
    line: int = -1
    column: int = 0
    text: str = ""
    shipped: Path | None = field(default=None, compare=False, repr=False)

    @property
    def in_file(self) -> bool:
        return self.line >= 0

    @property
    def order(self) -> tuple[bool, str, int, int]:
        """Return a sort key: by file and line; overrides last, in the order in which they were read."""
        return not self.in_file, self.origin if self.in_file else "", self.line, self.column

    def __str__(self) -> str:
        return f"{self.origin}:{self.line + 1}:{self.column + 1}" if self.in_file else self.origin


@dataclass(frozen=True)
class Node:
    """A value and its place: a scalar, a list of Nodes, or a mapping, which has the places of its keys too."""

    mark: Mark
    value: "str | int | float | bool | tuple[Node, ...] | dict[str, Entry] | None"


@dataclass(frozen=True)
class Entry:
    key: Mark
    node: Node


@dataclass(frozen=True)
class Problem:
    """A mistake in a spec, whose text is the user's message; `hint` says what may have been meant."""

    mark: Mark
    where: Where
    message: str
    hint: str = ""

    def __str__(self) -> str:
        head = ": ".join(part for part in (str(self.mark), spelled(self.where), self.message) if part)
        head += f" ({self.hint})" if self.hint else ""
        if not self.mark.in_file:
            return head
        line = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in self.mark.text)
        indent = re.sub(r"[^\t]", " ", line[: self.mark.column])  # tabs stay, so that the caret stands right
        return f"{head}\n    {line}\n    {indent}^"


def refusal(problems: Iterable[Problem]) -> SpecError:
    """Return one error with all problems, in the order of their places."""
    ordered = sorted(problems, key=lambda problem: problem.mark.order)
    return SpecError("\n".join(str(problem) for problem in dict.fromkeys(ordered)))


def spelled(where: Where) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def printable(text: str) -> str:
    """Return the text with every character escaped that a line of a terminal cannot show."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Source:
    """One YAML text: a file's, or the value of an override, whose places are all that override.

    where: the path of the override. shipped: the path of a shipped file. problems: mistakes in the text; values that
    cannot be read are null.
    """

    def __init__(
        self, text: str, origin: str, *, override: bool = False, where: Where = (), shipped: Path | None = None
    ) -> None:
        self._text, self._origin, self._override, self._where = text, origin, override, where
        self._shipped = shipped
        self._lines = text.splitlines()
        self._values = 0
        self.problems: list[Problem] = []

    def read(self) -> Node:
        try:
            if root := yaml.compose(self._text, Loader=_Core):
                return self._node(root, self._where, ())
        except _EndlessError as error:
            self._wrong(self._mark(error.problem_mark), self._where, str(error.problem))
        except yaml.MarkedYAMLError as error:
            what = ", ".join(part for part in (error.context, error.problem) if part)
            self._wrong(self._mark(error.problem_mark), self._where, f"not YAML: {what}")
        except yaml.reader.ReaderError as error:
            *above, line = self._text[: error.position].split("\n")
            mark = yaml.Mark("", error.position, len(above), len(line), None, 0)
            self._wrong(self._mark(mark), self._where, f"not YAML: {str(error).splitlines()[0]}")
        return Node(self._mark(None), None)

    def _mark(self, mark: Any) -> Mark:
        if self._override:
            return Mark(self._origin)
        line, column = (mark.line, mark.column) if mark else (0, 0)
        return Mark(
            self._origin, line, column, self._lines[line] if line < len(self._lines) else "", shipped=self._shipped
        )

    def _node(self, node: yaml.Node, where: Where, inside: tuple[yaml.Node, ...]) -> Node:
        """Return the Node of a YAML node. inside: the nodes around it, which an alias could repeat without end."""
        mark = self._mark(node.start_mark)
        self._values += 1
        if len(inside) >= DEEPEST or self._values > MOST:
            raise _EndlessError(node.start_mark)
        if node in inside or not _plain_tag(node):
            self._wrong(mark, where, "an alias of a group around it" if node in inside else f"no tags here: {node.tag}")
            return Node(mark, None)
        inside = (*inside, node)
        match node:
            case yaml.MappingNode():
                return Node(mark, dict(self._entries(node, where, inside)))
            case yaml.SequenceNode():
                items = enumerate(node.value)
                return Node(mark, tuple(self._node(item, (*where, index), inside) for index, item in items))
        return Node(mark, self._scalar(node, mark, where))

    def _entries(
        self, node: yaml.MappingNode, where: Where, inside: tuple[yaml.Node, ...]
    ) -> Iterator[tuple[str, Entry]]:
        first: dict[str, Mark] = {}
        for key, value in node.value:
            mark = self._mark(key.start_mark)
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
                self._wrong(mark, where, "a key must be a word")
            elif key.value in first:
                seen = f"first on line {first[key.value].line + 1}" if mark.in_file else ""
                self._wrong(mark, (*where, key.value), f"duplicate key '{key.value}'", seen)
            else:
                first[key.value] = mark
                yield key.value, Entry(mark, self._node(value, (*where, key.value), inside))

    def _scalar(self, node: yaml.Node, mark: Mark, where: Where) -> str | int | float | bool | None:
        text = str(node.value)
        match node.tag:
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool":
                return text == "true"
            case "tag:yaml.org,2002:int" if len(text) > LONGEST:
                self._wrong(mark, where, f"a number of {len(text):,} digits")
                return None
            case "tag:yaml.org,2002:int":
                return int(text, 0)
            case "tag:yaml.org,2002:float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan"))
            case "!zeros":
                self._wrong(mark, where, f"{text} has a leading zero", "leave it out, or quote the text")
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            self._wrong(mark, where, f"'{printable(text)}' holds a NUL or half a character, which no text may")
            return None
        return text

    def _wrong(self, mark: Mark, where: Where, message: str, hint: str = "") -> None:
        self.problems.append(Problem(mark, where, message, hint))


_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    f"{_TAG}null": r"null|~|",
    f"{_TAG}bool": r"true|false",
    "!zeros": r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?",
    f"{_TAG}int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    f"{_TAG}float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
}


class _EndlessError(yaml.MarkedYAMLError):
    def __init__(self, mark: Any) -> None:
        super().__init__(None, None, f"more than {DEEPEST} levels or {MOST:,} values: no spec needs that", mark)


class _Core(yaml.SafeLoader):
    """PyYAML's parser with the scalars above instead of YAML 1.1's. It only composes; nothing is constructed."""

    yaml_implicit_resolvers = {None: [(tag, re.compile(rf"(?:{form})\Z")) for tag, form in _SCALARS.items()]}  # noqa: RUF012
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Raise _EndlessError for nesting that is deeper than DEEPEST, before Python's stack ends."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise _EndlessError(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _plain_tag(node: yaml.Node) -> bool:
    """Return whether a tag is that of the value's form, or of text: `!!int five` and `!!python/tuple` are not."""
    match node:
        case yaml.MappingNode():
            return bool(node.tag == f"{_TAG}map")
        case yaml.SequenceNode():
            return bool(node.tag == f"{_TAG}seq")
    return node.tag == f"{_TAG}str" or bool(re.fullmatch(_SCALARS.get(node.tag, "(?!)"), str(node.value)))
