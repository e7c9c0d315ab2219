"""The command line as a user types it, in this process or in one of its own, and a folder to type it in."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import BACKBONE

from selfsup.cli import command

SPEC: dict[str, Any] = {
    "name": "tiny",
    "method": "mae",
    "data": {"train": "train", "val": "train"},
    "backbone": BACKBONE,
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {"k": 3}},
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


def selfsup(*argv: str, cwd: Path) -> Done:
    """`selfsup ARGV`, as its entry point runs it, in this process, since a new one takes seconds to import torch."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setenv("SELFSUP_HOME", str(cwd / "home"))
        patch.setattr(sys, "argv", ["selfsup", *argv])
        with pytest.raises(SystemExit) as ended:
            command()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())


def process(*argv: str, cwd: Path, **environment: str) -> Done:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    clean |= {"SELFSUP_HOME": str(cwd / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def packed_folder(folder: Path) -> Path:
    """Write a spec, the images of two classes, and their shards in `train`, to a folder; return it."""
    draw = np.random.default_rng(0)
    for number in range(16):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    done = selfsup("shards", "pack", "images", "train", "--shard-size", "6", "--resize", "12", cwd=folder)
    assert done.code == 0, done.err
    assert done.out == "train: 16 samples in 3 shards; 2 classes, all labelled: a 8, b 8\n"
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    return folder
