"""The specs and sweeps that are part of the package, and the names that stand for them: in1k/mae, demo."""

import difflib
import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PIPELINES, SWEEPS = "selfsup.pipelines", "selfsup.sweeps"  # packages, which are above this one


@functools.cache
def files() -> Mapping[str, Path]:
    """Return name -> file: FOLDER/NAME of a spec, what other specs extend included, or the NAME of a sweep."""
    pipelines, sweeps = _folder(PIPELINES), _folder(SWEEPS)
    specs = {f"{path.parent.name}/{path.stem}": path for path in sorted(pipelines.glob("*/*.yaml"))}
    return specs | {path.stem: path for path in sorted(sweeps.glob("*.yaml"))}


class SpecFile(NamedTuple):
    """path: to read it from. origin: what messages call it, its path as the user wrote it or its shipped name."""

    path: Path
    origin: str
    shipped: bool


def locate(path: Path, name: str = "", *, shipped: bool = False) -> SpecFile:
    """Return the file at a path, or else the shipped file of that name; where neither exists, the path.

    name: as the user wrote it, with or without .yaml; the path if left out. shipped: a shipped file led to this path.
    """
    if os.path.lexists(path) and not path.is_dir():  # a broken link is there, to be told; a folder is no spec
        return SpecFile(path, _name(path) if shipped else str(path), shipped)
    file = files().get((name or str(path)).removesuffix(".yaml"))
    return SpecFile(file, _name(file), True) if file else SpecFile(path, str(path), False)


def names_like(name: str) -> list[str]:
    """Return the three names of shipped files that are most like this one, the likest first."""
    return difflib.get_close_matches(name.removesuffix(".yaml"), files(), n=3, cutoff=0)


def _name(path: Path) -> str:
    return next((name for name, file in files().items() if file == path), str(path))


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations, f"{package} is no package"
    return Path(spec.submodule_search_locations[0])
