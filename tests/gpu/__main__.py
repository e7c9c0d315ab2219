"""The command `python tests/gpu`, for a machine that has torch, timm, numpy and this tree."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, for deterministic products
sys.path[:0] = [str(ROOT / folder) for folder in ("platform", "tests/helpers", "tests")]

from gpu import unchecked  # noqa: E402

if find_spec("pydantic") is None:
    unchecked.install()

import selfsup  # noqa: E402

selfsup.__path__.append(str(ROOT))  # methods, pipelines and sweeps lie beside platform, where nothing is installed

if find_spec("scipy") is None:
    from selfsup.dirichletmask import DirichletMask

    DirichletMask._shares = unchecked.exponential_shares

from gpu.check import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
