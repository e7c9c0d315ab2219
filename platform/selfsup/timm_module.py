"""Modules of timm as instances of one's own, whose random numbers are given: timm draws from Python's and NumPy's.

Another thread that draws from these, or seeds them, would change what a module of all draws.
"""

import importlib.util
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np


def own_module(name: str) -> Any:
    """Return an instance of a module of timm, such as `data.mixup`, that nothing else has. Imports no torch itself."""
    package = importlib.util.find_spec("timm")
    assert package, "timm is not installed"
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], *name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"selfsup_timm.{name}", path)
    assert spec, f"timm has no {name}"
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.random = Random(0)
    module.np = SimpleNamespace(**vars(np) | {"random": np.random.RandomState(0)})
    return module


def seed(module: Any, number: int) -> None:
    """Let what a module of one's own draws, by `random` and `np.random`, follow from a number of 32 bits."""
    module.random.seed(number)
    module.np.random.seed(number)
