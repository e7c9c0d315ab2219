"""Objectives from outside of this package, as `method:` names them.

    method: ./mine.py                  # a file, relative to the spec that says so (on the command line, to the folder)
    method: my_lab.methods:Mine        # a class of a module that is installed wherever selfsup runs

A file is a module below this one: its name holds its path, so that every process that unpickles what the file defines
imports it by itself.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from selfsup.errors import SpecError
from selfsup.layers import find
from selfsup.naming import WORD
from selfsup.source import Entry, Node

__path__: list[str] = []  # so that modules below this one can be imported, which `_Finder` finds
HUGGING_FACE = "hf:"  # how the names of transformers' models begin
CONFIG = re.compile(rf"{HUGGING_FACE}[A-Za-z]\w*Config", re.ASCII)
CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


def is_file(method: object) -> bool:
    """Return whether a method is a file's."""
    return isinstance(method, str) and method.endswith(".py")


def is_outside(method: object) -> bool:
    """Return whether a method is a file's or a module's."""
    return is_file(method) or (isinstance(method, str) and ":" in method)


def is_config_folder(backbone: str) -> bool:
    """Return whether a backbone is a folder with a config of transformers."""
    text = backbone.removeprefix(HUGGING_FACE)
    return text != backbone and not text.startswith("{") and not CONFIG.fullmatch(backbone)


def short(method: str) -> str:
    """Return the name of a method in ids, tables and MLflow: a file's stem, a class's name in lower case."""
    return Path(method).stem if is_file(method) else method.rpartition(":")[2].lower() if ":" in method else method


def rooted(root: Node) -> Node:
    """Return a spec's tree with the file of its method, if it is one, as an absolute path."""
    entry = find(root, ("method",))
    if entry is None or not is_file(entry.node.value):
        return root
    assert isinstance(root.value, dict)
    mark = entry.node.mark
    folder = (mark.shipped or Path(mark.origin)).parent if mark.in_file else Path()
    path = os.path.normpath(Path.cwd() / folder / str(entry.node.value))
    return Node(root.mark, root.value | {"method": Entry(entry.key, Node(mark, path))})


@functools.cache
def text(path: str) -> bytes:
    """Return the content of a file as it was when first asked for in this process: what is run is what is digested."""
    return Path(path).read_bytes()


def module(method: str, taken: Sequence[str]) -> ModuleType:
    """Import the module of a method. taken: names that are others'.

    Raises SpecError where it is not there, its import fails, or its short name cannot be that of a method.
    """
    if not is_file(method) and not CLASS.fullmatch(method):
        raise SpecError(f"expected a file, as in ./mine.py, or module:Class, as in my_lab.methods:Mine, not '{method}'")
    what = "file" if is_file(method) else "class"
    if short(method) in taken:
        raise SpecError(f"{short(method)} is the name of a method that selfsup has; give the {what} another name")
    if not WORD.fullmatch(short(method)):
        raise SpecError(f"the name of a {what} becomes that of its runs: a letter, then letters, digits, - and _")
    return imported(method)


def module_name(method: str) -> str:
    """Return the name that the module of a method is imported by."""
    return f"{__name__}.{os.fsencode(method).hex()}" if is_file(method) else method.partition(":")[0]


def imported(method: str) -> ModuleType:
    """Import the module of a method or another name from outside. Raises SpecError where that fails."""
    name = module_name(method)
    if is_file(method) and not Path(method).is_file():
        raise SpecError(f"there is no file {method}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            advice = "install its package where selfsup runs; for a submitted job, on every machine of the cluster"
            raise SpecError(f"no module {error.name} is installed; {advice}") from None
        raise _failed(method, name, error) from error
    except Exception as error:
        raise _failed(method, name, error) from error


def _failed(method: str, name: str, error: Exception) -> SpecError:
    """Return the error of an import, with the line of the user's own code that it passed last."""
    subject = method if is_file(method) else name
    reason = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not _is_machinery(frame.filename)]
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else subject
        mine = [frame for frame in own if frame.filename == subject]
        place = f"{mine[-1].filename}:{mine[-1].lineno}" if mine else place
    return SpecError(f"{subject} cannot be imported: {place}: {reason}")


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
