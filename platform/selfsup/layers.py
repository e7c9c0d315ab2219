"""A spec in layers: a file over the file that it `extends`, under the overrides of the command line."""

import errno
import functools
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfsup.errors import DataError, SpecError
from selfsup.shipped import SpecFile, locate, names_like
from selfsup.source import Entry, Mark, Node, Problem, Source, Where, printable, refusal


@dataclass(frozen=True)
class Layers:
    """A reader of layers. whole: places whose mapping is one value, replaced as a whole. problems: found on the way."""

    whole: Collection[Where] = ()
    problems: list[Problem] = field(default_factory=list)

    def read(self, path: Path, overrides: Sequence[str]) -> Node:
        """Return the mapping that all layers make.

        Raises SpecError where a file does not exist, is not YAML or is no mapping; other problems are collected.
        """
        base, own = self.split(path)
        return self.stack(base, own, *self.overrides(overrides))

    def split(self, path: Path) -> tuple[Node, Node]:
        """Return the mapping that a file extends, empty if none, and the file's own. Raises as `read` does."""
        own = self._file(locate(path), Mark(str(path)))
        return self.base(own, (path,)), own

    def base(self, root: Node, below: tuple[Path, ...]) -> Node:
        """Return the mapping that `root` extends, and remove its `extends`. below: the files that led here."""
        assert isinstance(root.value, dict)
        extends = root.value.pop("extends", None)
        if extends is None:
            return Node(root.mark, {})
        mark, name = extends.node.mark, extends.node.value
        if not isinstance(name, str):
            raise self._stop(mark, ("extends",), "expected the path of a spec, relative to this file, or a shipped one")
        path = Path(os.path.normpath((mark.shipped or Path(mark.origin)).parent / name))
        file = locate(path, name, shipped=bool(mark.shipped))
        if os.path.realpath(file.path) in (os.path.realpath(locate(one).path) for one in below):
            raise self._stop(mark, ("extends",), f"{file.origin} extends itself in the end")
        own = self._file(file, mark)
        return self.stack(self.base(own, (*below, file.path)), own)

    def stack(self, *layers: Node) -> Node:
        """Merge layers, each over those before it."""
        return functools.reduce(lambda base, top: merge(base, top, whole=self.whole), layers)

    def overrides(self, texts: Sequence[str]) -> list[Node]:
        """Return a layer for each override that can be parsed; others are noted in `problems`."""
        return [node for text in texts if (node := self._override(text))]

    def _file(self, file: SpecFile, asked: Mark) -> Node:
        """Read the mapping in a file. asked: the place that names it."""
        where = ("extends",) if asked.in_file else ()
        try:
            text = _text(file.path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text at byte {error.start}"
            hint = _hint(file.path) if isinstance(error, FileNotFoundError) else ""
            raise self._stop(asked, where, f"cannot read {file.origin}: {reason}", hint) from None
        source = Source(text, file.origin, shipped=file.path if file.shipped else None)
        root = self._read(source)
        if isinstance(root.value, dict):
            return root
        if source.problems:
            raise refusal(self.problems)
        raise self._stop(root.mark, (), "expected a spec: a mapping with name, method, data and train")

    def _override(self, text: str) -> Node | None:
        mark = Mark(f"-s {printable(text)}")
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or not path.isprintable():
            self.problems.append(Problem(mark, (), "expected path=value, such as optim.lr=1e-3"))
            return None
        node = self._read(Source(value, mark.origin, override=True, where=tuple(keys)))
        return nested(keys, mark, node)

    def _stop(self, mark: Mark, where: Where, message: str, hint: str = "") -> SpecError:
        return refusal([*self.problems, Problem(mark, where, message, hint)])

    def _read(self, source: Source) -> Node:
        root = source.read()
        self.problems.extend(source.problems)
        return root


def _hint(path: Path) -> str:
    """Return a hint at shipped files of similar names, unless the path is clearly that of a file: ../x, /x."""
    if path.is_absolute() or path.parts[:1] == ("..",):
        return ""
    return f"no shipped one is called so; there are {', '.join(names_like(str(path)))} and others: selfsup recipes"


def _text(path: Path) -> str:
    """Return the text of a regular file. Raises OSError for a pipe or a device, whose end may never come."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "no file, but a pipe or a device")
    return path.read_text(encoding="utf-8-sig")


def merge(base: Node, top: Node, *, whole: Collection[Where] = (), where: Where = ()) -> Node:
    """Merge `top` over `base`, mapping by mapping; values at places in `whole` are replaced as a whole."""
    if not isinstance(base.value, dict) or not isinstance(top.value, dict) or where in whole:
        return top
    merged = dict(base.value)
    for key, entry in top.value.items():
        below = base.value.get(key)
        merged[key] = _over(below, entry, whole, (*where, key)) if below else entry
    return Node(_place(base.mark, top.mark), merged)


def _over(below: Entry, entry: Entry, whole: Collection[Where], where: Where) -> Entry:
    node = merge(below.node, entry.node, whole=whole, where=where)
    return Entry(entry.key if node is entry.node else _place(below.key, entry.key), node)


def _place(base: Mark, top: Mark) -> Mark:
    """Return the place of a merged group: in a file rather than an override, since missing keys belong there."""
    return top if top.in_file else base


def nested(keys: Sequence[str], key: Mark, node: Node) -> Node:
    """Return the mapping with only `node`, at the path `keys`. key: the place of that path."""
    for name in reversed(keys):
        node = Node(node.mark, {name: Entry(key, node)})
    return node


def less(node: Node, *names: str) -> Node:
    """Return a mapping without these keys."""
    assert isinstance(node.value, dict)
    return Node(node.mark, {name: entry for name, entry in node.value.items() if name not in names})


def plain(node: Node) -> Any:
    """Return the value without its places: dicts, tuples, scalars."""
    if isinstance(node.value, dict):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return tuple(plain(item) for item in node.value)
    return node.value


def find(root: Node, where: Where) -> Entry | None:
    """Return the entry at `where`, None without one; an item of a list is its own key."""
    entry = Entry(root.mark, root)
    for part in where:
        value = entry.node.value
        if isinstance(value, dict) and isinstance(part, str) and part in value:
            entry = value[part]
        elif isinstance(value, tuple) and isinstance(part, int) and part < len(value):
            entry = Entry(value[part].mark, value[part])
        else:
            return None
    return entry


def written(root: Node, name: str) -> Entry | None:
    """Return the entry under a key; None also for null, which takes back the value of an extended file."""
    entry = find(root, (name,))
    return entry if entry and entry.node.value is not None else None


def placed(root: Node, paths: Iterable[str], message: str) -> Problem:
    """Return a problem at the first of these keys that is in an override, or else in a file, the likeliest first."""
    places = [tuple(path.split(".")) for path in paths]
    present = [place for place in places if find(root, place)] or places[:1]
    where = min(present, key=lambda place: nearest(root, place).key.in_file)
    return Problem(nearest(root, where).key, where, message)


@contextmanager
def located(root: Node, *paths: str) -> Iterator[None]:
    """Add the place of its settings to an error of the block. paths: settings of an error that names none."""
    try:
        yield
    except (SpecError, DataError) as error:
        if settings := error.paths or paths:
            raise type(error)(placed(root, settings, error.bare)) from error
        raise


def nearest(root: Node, where: Where) -> Entry:
    """Return the entry at `where`, or else that of the innermost group around it."""
    return find(root, where) or nearest(root, where[:-1])
