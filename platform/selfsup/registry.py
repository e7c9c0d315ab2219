"""Folders as registries: the modules of a package, and the classes of one kind that a module defines."""

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any


def modules(package: str) -> list[str]:
    """Return the names of a package's modules, sorted; its packages are not among them."""
    return list(_modules(package, *importlib.import_module(package).__path__))


@cache
def _modules(_: str, *folders: str) -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folders) if not module.ispkg))


def defined(module: ModuleType, base: type[Any]) -> list[Any]:
    """Return the subclasses of `base` that a module defines; those that it imports are not among them."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]


def only(package: str, name: str, base: type[Any]) -> Any:
    """Return the one subclass of `base` that a module of a package defines."""
    classes = defined(importlib.import_module(f"{package}.{name}"), base)
    assert len(classes) == 1, f"{package}.{name} must define exactly one {base.__name__}, not {len(classes)}"
    return classes[0]
