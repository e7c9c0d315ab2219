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
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Lock
from typing import Any

from selfsup import outside

PACKAGE = "selfsup"
_parsing = Lock()  # CPython 3.11 has ended threads that parsed at once in a SystemError
EXCLUDED = frozenset(
    f"{PACKAGE}.{name}"
    for name in """
    apart augmentation augmentation_contract claim cli cli_catalogue cli_encoders cli_help cli_runs cli_shards codebase
    columns conflicts errors evaluations evaluator evaluator_contract explain failures feature_choice folders homes knob
    layers leave metric_names metrics_log mirror mirror_index mlflow_store objects origin outside progress published
    recall recipes redact registry renamed resources screen sealed settings shipped shipper source spec spec_schema
    sqlite_runs stage stand_ins tensors track whole
    pipelines.cluster pipelines.cost pipelines.dense pipelines.embed pipelines.export pipelines.feasible
    pipelines.labelled pipelines.planned pipelines.planning pipelines.sharing pipelines.summary pipelines.trained
    pipelines.data.bundled pipelines.data.cache pipelines.data.fetch pipelines.data.head pipelines.data.manifest
    pipelines.data.pack pipelines.data.renaming pipelines.data.rows pipelines.data.shards pipelines.data.sources
    pipelines.data.storage pipelines.data.tars pipelines.data.urls pipelines.stages.alone pipelines.stages.curves
    pipelines.stages.durable pipelines.stages.gauges pipelines.stages.meter pipelines.stages.pretrain
    pipelines.stages.runner pipelines.stages.tasks sweeps
    """.split()  # noqa: SIM905
)
FOLDERS = (PACKAGE, f"{PACKAGE}.methods", f"{PACKAGE}.evals")  # their __init__.py is excluded, their modules are not


@cache
def modules(*entries: str) -> Mapping[str, str]:
    """Return name, without the package's -> digest of all modules that count, read once per process.

    entries: names of modules, which count even if they are excluded. A file of the user's is called by its name,
    wherever it lies.
    """
    return {_title(name): digest for name, digest in _reached(*entries).items()}


def _title(name: str) -> str:
    return Path(name).name if outside.is_file(name) else name.removeprefix(f"{PACKAGE}.")


def _reached(*entries: str) -> dict[str, str]:
    """Return name -> digest of all modules that count."""
    digests: dict[str, str] = {}
    pending = list(entries)
    while pending:
        name = pending.pop()
        if name not in digests and (name in entries or not _is_excluded(name)):
            digests[name], imported = _module(name)
            pending += imported
    return {name: digests[name] for name in sorted(digests)}


def unshipped_digest(package: str, name: str) -> dict[str, str]:
    """Return the digest of a method or evaluator as part of a stage's key; {} for one that selfsup ships.

    Stages of shipped ones keep their keys when the code changes; a note beside the stage tells results apart. The
    digest of a file covers that file. The digest of `module:Class` covers the modules of the same top-level package
    that it reaches by import statements. Neither covers other packages, compiled modules and computed imports.
    """
    shipped = importlib.import_module(f"{PACKAGE}.{package}").SHIPPED
    if name in shipped:
        return {}
    return {"code": _digest(name) if outside.is_outside(name) else _module(entry(package, name))[0]}


def augmentation_digest(use: str) -> dict[str, str]:
    """Return the digest of an augmentation as part of a stage's key; {} for none: ""."""
    return {"augment_code": _digest(use)} if use else {}


def _digest(name: str) -> str:
    """Return the digest of a file, or of the modules of a class."""
    return _module(name)[0] if outside.is_file(name) else _package_digest(name.partition(":")[0])


def backbone_digest(name: str) -> dict[str, str]:
    """Return the digest of a backbone that is `module:callable` as part of a stage's key; {} for all others."""
    modules = backbone_entry(name)
    return {"backbone_code": _package_digest(*modules)} if modules else {}


def backbone_entry(name: str) -> tuple[str, ...]:
    """Return the module of a backbone that is `module:callable`; none for all others."""
    return (name.partition(":")[0],) if outside.CLASS.fullmatch(name) and not outside.CONFIG.fullmatch(name) else ()


def _package_digest(module: str) -> str:
    own = {other: digest for other, digest in _reached(module).items() if _top(other) == _top(module)}
    return hashlib.blake2b(repr(own).encode(), digest_size=4).hexdigest()


def entry(package: str, name: str) -> str:
    """Return the module of a method, evaluator or augmentation, or the file of one that is a file of the user's."""
    if outside.is_file(name):
        return name
    return name.partition(":")[0] if ":" in name else f"{PACKAGE}.{package}.{name}"


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module, and the modules of this package and of its own that it imports."""
    source = outside.text(name) if outside.is_file(name) else _source(name).read_bytes()
    with _parsing:
        tree = ast.parse(source)
    text = repr(_plain(tree)).encode()
    return hashlib.blake2b(text, digest_size=4).hexdigest(), tuple(dict.fromkeys(_imports(tree, name)))


def _is_excluded(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:depth]) in EXCLUDED for depth in range(2, len(parts) + 1)) or name in FOLDERS


def _source(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no module {name}"
    assert spec.origin is not None, f"{name} has no source"
    return Path(spec.origin)


def _imports(tree: ast.AST, importer: str) -> Iterator[str]:
    """Yield the modules of this package, and of the importer's, that a module imports."""
    counted = {PACKAGE} if outside.is_file(importer) else {PACKAGE, _top(importer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name != PACKAGE]
            yield from (name for name in names if _top(name) in counted and _has_source(name))
        elif isinstance(node, ast.ImportFrom) and _top(module := _absolute(node, importer)) in counted:
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield from filter(_has_source, [inner if _is_module(inner) else module])


def _top(name: str) -> str:
    return name.partition(".")[0]


def _absolute(node: ast.ImportFrom, importer: str) -> str:
    """Return the module that is imported from, which a package outside may name relative to the importer."""
    if not node.level or outside.is_file(importer):
        return node.module or ""
    is_package = _source(importer).name == "__init__.py"
    package = importer if is_package else importer.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


@cache
def _is_module(name: str) -> bool:
    """Return whether a dotted name is a module, not a class or function in one."""
    parent = _spec(name.rpartition(".")[0])
    return bool(parent and parent.submodule_search_locations and _spec(name))


def _has_source(name: str) -> bool:
    """Return whether a module is there and written in Python; outside, one may be compiled or not installed."""
    spec = _spec(name)
    return bool(spec and spec.origin and spec.origin.endswith(".py"))


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None


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
