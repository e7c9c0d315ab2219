"""The code that makes a stage, as a digest of each of its modules: a loss that changed is noticed, a comment is not.

A module counts if a stage's own module, or the method's or evaluator's, reaches it through imports, as the text says
them. The walk does not enter what lays out, checks, keeps, moves and tells: what such modules hand to the others is
named by the stage's settings and by the digest of its data already. A new module counts until it is put among these.

Of a module counts what its syntax tree holds but docstrings and knobs: a knob's value is among the stage's settings,
and the rest of its line says where to look and what to read. So comments, layout, bounds and descriptions are free.
"""

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "selfsup"
APART = frozenset(
    f"{PACKAGE}.{name}"
    for name in """
    cli cli_shards codebase columns conflicts errors evaluations evaluator explain failures knob layers metrics_log
    mlflow_store origin progress recipes redact renamed sealed shipped shipper source spec stage tensors track whole
    pipelines.cluster pipelines.cost pipelines.export pipelines.feasible pipelines.planned pipelines.planning
    pipelines.sharing
    pipelines.data.bundled pipelines.data.cache pipelines.data.fetch pipelines.data.head pipelines.data.manifest
    pipelines.data.pack pipelines.data.rows pipelines.data.shards pipelines.data.storage pipelines.data.tars
    pipelines.data.urls
    pipelines.stages.meter pipelines.stages.pretrain pipelines.stages.runner sweeps
    """.split()  # noqa: SIM905
)
FOLDERS = (PACKAGE, f"{PACKAGE}.methods", f"{PACKAGE}.evals")  # themselves, not what is in them


@cache
def modules(*entries: str) -> Mapping[str, str]:
    """Name, without the package's -> digest, of all that count; as their files were when first asked in this process.

    entries: names of modules, which count themselves.
    """
    found: dict[str, str] = {}
    left = list(entries)
    while left:
        name = left.pop()
        if name not in found and (name in entries or not _apart(name)):
            found[name], imported = _module(name)
            left += imported
    return {name.removeprefix(f"{PACKAGE}."): found[name] for name in sorted(found)}


def own(package: str, name: str) -> dict[str, str]:
    """What of the code is part of a stage's key: of a method or evaluator that selfsup does not ship, its digest.

    The others keep their keys when they change, and what was made before is told apart by its note.
    """
    whole = f"{PACKAGE}.{package}.{name}"
    shipped = importlib.import_module(f"{PACKAGE}.{package}").SHIPPED
    return {} if name in shipped else {"code": _module(whole)[0]}


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Its digest, and the modules of ours that it imports."""
    tree = ast.parse(_source(name).read_bytes())
    text = repr(_plain(tree)).encode()
    return hashlib.blake2b(text, digest_size=4).hexdigest(), tuple(dict.fromkeys(_imports(tree)))


def _apart(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:depth]) in APART for depth in range(2, len(parts) + 1)) or name in FOLDERS


def _source(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no module {name}"
    assert spec.origin is not None, f"{name} has no source"
    return Path(spec.origin)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _is_module(inner) else str(node.module)


@cache
def _is_module(name: str) -> bool:
    """Not so of a class or function in one."""
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    return bool(parent and parent.submodule_search_locations and importlib.util.find_spec(name))


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, the same in every version of Python: without places and empty fields."""
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _silent(item))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
    return (type(node).__name__, *fields)


def _silent(node: Any) -> bool:
    """A docstring or other text that stands alone; or a knob."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.AnnAssign(value=ast.Call(func=ast.Name(id="knob"))):
            return True
    return False
