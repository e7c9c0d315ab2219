"""Digests of the modules that compute a stage, which detect a changed loss, but not a changed comment.

A module counts if the stage's own module, or that of the method or evaluator, imports it directly or through others.
Modules in EXCLUDED, and what only they import, do not count: they lay out, check, store, move or report, and the
stage's settings and the digest of its data cover what they pass on. A new module counts until it is listed there.

A digest covers the syntax tree without docstrings and knobs: the value of a knob is among the stage's settings, and the
rest of its line is bounds and documentation. So comments, layout, bounds and descriptions can change freely.
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
EXCLUDED = frozenset(
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
FOLDERS = (PACKAGE, f"{PACKAGE}.methods", f"{PACKAGE}.evals")  # their __init__.py is excluded, their modules are not


@cache
def modules(*entries: str) -> Mapping[str, str]:
    """Return name, without the package's -> digest of all modules that count, read once per process.

    entries: names of modules, which count even if they are excluded.
    """
    digests: dict[str, str] = {}
    pending = list(entries)
    while pending:
        name = pending.pop()
        if name not in digests and (name in entries or not _is_excluded(name)):
            digests[name], imported = _module(name)
            pending += imported
    return {name.removeprefix(f"{PACKAGE}."): digests[name] for name in sorted(digests)}


def unshipped_digest(package: str, name: str) -> dict[str, str]:
    """Return the digest of a method or evaluator as part of a stage's key; {} for one that selfsup ships.

    Stages of shipped ones keep their keys when the code changes; a note beside the stage tells results apart.
    """
    module = f"{PACKAGE}.{package}.{name}"
    shipped = importlib.import_module(f"{PACKAGE}.{package}").SHIPPED
    return {} if name in shipped else {"code": _module(module)[0]}


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module, and the modules of this package that it imports."""
    tree = ast.parse(_source(name).read_bytes())
    text = repr(_plain(tree)).encode()
    return hashlib.blake2b(text, digest_size=4).hexdigest(), tuple(dict.fromkeys(_imports(tree)))


def _is_excluded(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:depth]) in EXCLUDED for depth in range(2, len(parts) + 1)) or name in FOLDERS


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
    """Return whether a dotted name is a module, not a class or function in one."""
    parent = importlib.util.find_spec(name.rpartition(".")[0])
    return bool(parent and parent.submodule_search_locations and importlib.util.find_spec(name))


def _plain(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without positions and empty fields: the same in all Python versions."""
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_documentation(item))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
    return (type(node).__name__, *fields)


def _is_documentation(node: Any) -> bool:
    """Return whether a statement is a docstring, another string, or a knob."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.AnnAssign(value=ast.Call(func=ast.Name(id="knob"))):
            return True
    return False
