"""Objectives, evaluations and augmentations from outside of this package, as `method:` and `use:` name them.

    method: ./mine.py                  # a file, relative to the spec that says so (on the command line, to the folder)
    method: my_lab.methods:Mine        # a class of a module that is installed wherever selfsup runs

A file is a module below this one: its name holds its path, so that every process that unpickles what the file defines
imports it by itself.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from os.path import expanduser
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from selfsup import registry
from selfsup.errors import SelfsupError, SpecError
from selfsup.knob import Knobs, default_problem, undeclared
from selfsup.layers import find
from selfsup.naming import WORD
from selfsup.predecessor import SECTIONS
from selfsup.shipped import files
from selfsup.source import Entry, Node, Where
from selfsup.stand_ins import need_torch

__path__: list[str] = []  # so that modules below this one can be imported, which `_Finder` finds
Kind = TypeVar("Kind")
PATTERN = r"\.py$|:"  # of a name from outside, in JSON schemas
HUGGING_FACE = "hf:"  # how the names of transformers' models begin
CONFIG = re.compile(rf"{HUGGING_FACE}[A-Za-z]\w*Config", re.ASCII)
CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


def is_file(name: object) -> bool:
    """Return whether a name is that of a file with a method or an evaluator."""
    return isinstance(name, str) and name.endswith(".py")


def is_outside(name: object) -> bool:
    """Return whether a name is that of a file or of something in a module."""
    return is_file(name) or (isinstance(name, str) and ":" in name)


def is_config_folder(backbone: str) -> bool:
    """Return whether a backbone is a folder with a config of transformers."""
    text = backbone.removeprefix(HUGGING_FACE)
    return text != backbone and not text.startswith("{") and not CONFIG.fullmatch(backbone)


def short(name: str) -> str:
    """Return a name as ids, tables and MLflow have it: a file's stem, a class's name in lower case."""
    return Path(name).stem if is_file(name) else name.rpartition(":")[2].lower() if ":" in name else name


def places(root: Node) -> list[Where]:
    """Return where a spec may name a file: its method, its augmentation, and what its evaluations use."""
    evals = find(root, ("evals",))
    names = evals.node.value if evals and isinstance(evals.node.value, dict) else ()
    return [("method",), ("augment", "use"), *(("evals", name, "use") for name in names)]


def rooted(root: Node) -> Node:
    """Return a spec's tree with the files and folders that it names as absolute paths.

    They are relative to the file that names them; what the command line and shipped specs name, to the current folder.
    """
    for place, is_path in (dict.fromkeys(places(root), is_file) | _resources(root)).items():
        entry = find(root, place)
        if entry and isinstance(entry.node.value, str) and is_path(entry.node.value):
            root = _replaced(root, place, _rooted(entry.node))
    return root


def local_paths(root: Node) -> Iterator[tuple[Where, Node]]:
    """Yield place and node of each path in a tree that is to be there where the spec runs: data, weights and specs."""
    for place, is_path in _resources(root).items():
        axes = [(axis, *path) for axis in ("ablate", "grid") for path in ((".".join(map(str, place)),), place)]
        for entry in filter(None, (find(root, path) for path in (place, *axes))):
            values = entry.node.value if isinstance(entry.node.value, tuple) else (entry.node,)
            yield from ((place, node) for node in values if isinstance(node.value, str) and is_path(node.value))


def _resources(root: Node) -> dict[Where, Callable[[str], bool]]:
    """-> each place of data, weights or an earlier training's spec: whether a text there is a path."""
    backbone: dict[Where, Callable[[str], bool]] = {
        ("backbone", "weights"): _is_weights,
        ("backbone", "name"): is_config_folder,
    }
    specs: dict[Where, Callable[[str], bool]] = {(section, "from"): _is_spec for section in SECTIONS}
    names = [(*group, "data", name) for group in _evals(root) for name in ("classes", "answers")]
    maps: dict[Where, Callable[[str], bool]] = dict.fromkeys(names, bool)
    return dict.fromkeys(_data_places(root), _is_folder) | backbone | specs | maps


def _data_places(root: Node) -> list[Where]:
    """Return where a spec names shards: its own, and those of its evaluations."""
    return [(*group, "data", split) for group in ((), *_evals(root)) for split in ("train", "val")]


def _evals(root: Node) -> list[Where]:
    """Return where a spec's evaluations are."""
    return [place[:-1] for place in places(root) if place[0] == "evals"]


def _is_folder(url: str) -> bool:
    return bool(url) and "://" not in url


def _is_spec(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and name.removesuffix(".yaml") not in files()


def _is_weights(path: str) -> bool:
    return path not in ("", "timm")


def _rooted(file: Node) -> Node:
    mark, name = file.mark, str(file.value)
    scheme, path = (HUGGING_FACE, name[len(HUGGING_FACE) :]) if is_config_folder(name) else ("", name)
    is_own = mark.in_file and not (mark.shipped or Path(mark.origin).absolute() in files().values())
    folder = Path(mark.origin).parent if is_own else Path()
    return Node(mark, scheme + os.path.normpath(Path.cwd() / folder / expanduser(path)))  # noqa: PTH111 (Path's raises)


def _replaced(tree: Node, place: Where, node: Node) -> Node:
    """Return a tree with another node at a place that it has."""
    if not place:
        return node
    assert isinstance(tree.value, dict)
    entry = tree.value[str(place[0])]
    inner = Entry(entry.key, _replaced(entry.node, place[1:], node))
    return Node(tree.mark, tree.value | {str(place[0]): inner})


@functools.cache
def text(path: str) -> bytes:
    """Return the content of a file as it was when first asked for in this process: what is run is what is digested."""
    return Path(path).read_bytes()


@functools.cache
def load(name: str, base: type[Kind], taken: tuple[str, ...]) -> type[Kind]:
    """Return the class of a kind that a file defines, or `module:Class`. taken: short names that it may not have.

    Raises SpecError where it is not there, its import fails, or it is no complete class of that kind.
    """
    _check_name(name, taken)
    module = imported(name)
    defined: list[type[Kind]] = registry.defined(module, base)
    listed, kind = ", ".join(cls.__name__ for cls in defined) or "none", f"selfsup.{base.__name__}"
    if is_file(name) and len(defined) != 1:
        raise SpecError(f"{name} must define one subclass of {kind}, and has {listed}")
    chosen = defined[0] if is_file(name) else getattr(module, name.partition(":")[2], None)
    if not (inspect.isclass(chosen) and issubclass(chosen, base)):
        raise SpecError(f"{name} is no subclass of {kind}; the module has {listed}")
    _check_complete(chosen, name)
    return chosen


def _check_name(name: str, taken: Collection[str]) -> None:
    if not is_file(name) and not CLASS.fullmatch(name):
        raise SpecError(f"expected a file, as in ./mine.py, or module:Class, as in my_lab.methods:Mine, not '{name}'")
    what = "file" if is_file(name) else "class"
    if short(name) in taken:
        raise SpecError(f"{short(name)} is a name that selfsup has itself; give the {what} another name")
    if not WORD.fullmatch(short(name)):
        raise SpecError(f"the name of a {what} becomes part of ids: a letter, then letters, digits, - and _")


def _check_complete(kind: type[Any], name: str) -> None:
    if lacking := sorted(kind.__abstractmethods__):
        raise SpecError(f"{name}: {kind.__name__} lacks {', '.join(lacking)}")
    hyper = getattr(kind, "Hyper", None)
    if not (inspect.isclass(hyper) and issubclass(hyper, Knobs)):
        raise SpecError(f"{name}: {kind.__name__} lacks Hyper, a class of its knobs: class Hyper(Knobs): ...")
    if plain := undeclared(hyper):
        raise SpecError(f"{name}: {kind.__name__}.Hyper.{plain[0]} must be declared with knob(...)")
    if problem := default_problem(hyper):
        raise SpecError(f"{name}: {kind.__name__}.Hyper: {problem}")


def imported(name: str) -> ModuleType:
    """Import the module of a name from outside. Raises SpecError where that fails."""
    module = f"{__name__}.{os.fsencode(name).hex()}" if is_file(name) else name.partition(":")[0]
    if is_file(name) and not Path(name).is_file():
        raise SpecError(f"there is no file {name}")
    need_torch()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            advice = "install its package where selfsup runs; for a submitted job, on every machine of the cluster"
            raise SpecError(f"no module {error.name} is installed; {advice}") from None
        raise failed(name if is_file(name) else module, error, "cannot be imported") from error
    except Exception as error:
        raise failed(name if is_file(name) else module, error, "cannot be imported") from error


def failed(subject: str, error: Exception, how: str) -> SpecError:
    """Return the error of a user's own code, with the line of it that was passed last. how: such as "fails"."""
    reason = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not _is_machinery(frame.filename)]
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else subject
        mine = [frame for frame in own if frame.filename == subject]
        place = f"{mine[-1].filename}:{mine[-1].lineno}" if mine else place
    return SpecError(f"{subject} {how}: {place}: {reason}")


@contextmanager
def failing(name: str) -> Iterator[None]:
    """Raise what a user's own code raises inside the block, but for a lack of memory or disk, as SpecError."""
    try:
        yield
    except (SelfsupError, MemoryError, OSError):
        raise
    except Exception as error:
        if not is_outside(name) or type(error).__name__ == "OutOfMemoryError":  # torch's
            raise
        raise failed(name if is_file(name) else name.partition(":")[0], error, "fails") from error


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen") or filename in (__file__, importlib.__file__)


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the text that is digested; bytecode beside the file could be of an earlier one."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return compile(text(self.path), self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the file whose path a module's name holds."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG004
        parent, _, code = name.rpartition(".")
        if parent != __name__ or not re.fullmatch("([0-9a-f]{2})+", code):
            return None
        file = os.fsdecode(bytes.fromhex(code))
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file))


sys.meta_path.append(_Finder)
