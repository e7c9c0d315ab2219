"""The runtime environment of a job: what travels along with it beside its specs."""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selfsup.errors import SpecError

FORWARDED = ("SELFSUP_HOME", "MLFLOW_TRACKING_URI")  # variables that must be valid on the cluster
PACKAGE_FILE = "__init__.py"


class Extras(NamedTuple):
    """The extras of a job: variables by name, packages by path, a file of Ray's settings, a wheel of selfsup."""

    variables: Sequence[str] = ()
    packages: Sequence[Path] = ()
    settings: Path | None = None
    wheel: Path | None = None


def runtime_env(extras: Extras, working_dir: Path, commit: str) -> dict[str, Any]:
    """Return the runtime environment of a job, but for the project itself, as Ray takes it.

    Raises SpecError for settings that contradict it.
    """
    own = {name: os.environ[name] for name in FORWARDED if name in os.environ} | _values(extras.variables)
    ours = {
        "working_dir": str(working_dir),
        "py_modules": [str(package) for package in extras.packages],
        "env_vars": own | {"SELFSUP_COMMIT": commit},
    }
    return merged(ours, extras.settings) if extras.settings else ours


def _values(names: Sequence[str]) -> dict[str, str]:
    """-> name: value here. No message holds a value, since it may be a secret."""
    if missing := [name for name in names if name not in os.environ]:
        raise SpecError(f"--env {missing[0]}: not set here; expected the name of a variable, whose value is then sent")
    return {name: os.environ[name] for name in names}


def merged(ours: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Merge a YAML file of Ray's settings into ours: variables by name, modules after ours, anything else as it is.

    Raises SpecError where both say a thing.
    """
    theirs = _read(path)
    if "working_dir" in theirs:
        raise SpecError(f"{path}: working_dir: a job's is made of its specs; send code of yours with --py-modules")
    variables, modules = theirs.get("env_vars") or {}, theirs.get("py_modules") or []
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise SpecError(
            f"{path}: env_vars: expected a mapping of names to texts; quote numbers: 'OMP_NUM_THREADS': '4'"
        )
    if not isinstance(modules, list):
        raise SpecError(f"{path}: py_modules: expected a list of packages")
    for name in variables.keys() & ours["env_vars"].keys():
        if variables[name] != ours["env_vars"][name]:
            raise SpecError(
                f"{path}: env_vars.{name}: the job is sent another value, as it is set here; unset one of them"
            )
    return theirs | {
        "working_dir": ours["working_dir"],
        "py_modules": [*ours["py_modules"], *modules],
        "env_vars": variables | ours["env_vars"],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise SpecError(f"{path}: expected a mapping of Ray's runtime environment, such as `pip: [my-lab]`")
    return settings


def own_packages(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the path of each package, and make it importable here, where specs that name its classes are checked.

    names: of folders, of .py files and wheels, or of installed packages.
    """
    paths = tuple(_package(name) for name in names)
    sys.path[:0] = [str(path.parent) for path in paths if path.suffix != ".whl" and str(path.parent) not in sys.path]
    return paths


def _package(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if path.is_dir() and not (path / PACKAGE_FILE).exists():
        inner = sorted(file.parent for depth in ("*", "src/*") for file in path.glob(f"{depth}/{PACKAGE_FILE}"))
        hint = f", such as {inner[0]}" if inner else ""
        raise SpecError(f"--py-modules {name}: no {PACKAGE_FILE} in it; name the folder that is imported{hint}")
    if path.is_dir() or (path.is_file() and path.suffix in (".py", ".whl")):
        return path
    module = importlib.util.find_spec(name) if name.isidentifier() else None
    if module is None or not (module.submodule_search_locations or (module.origin or "").endswith(".py")):
        raise SpecError(f"--py-modules {name}: neither a folder nor a .py, nor a package that is installed here")
    return Path([*(module.submodule_search_locations or ()), str(module.origin)][0])
