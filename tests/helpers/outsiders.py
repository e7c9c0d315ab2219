"""Plans and refusals of specs that name code of the user's own."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import BACKBONE

from selfsup.errors import SpecError
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.spec import read


def planned(spec: Path) -> PlannedRun:
    """Return the one run of a spec file."""
    [run] = plan(read(spec), spec.parent.parent / "home")
    return run


def refused(spec: Path, *overrides: str) -> str:
    """Return the first line of the error of a spec file under overrides."""
    with pytest.raises(SpecError) as caught:
        read(spec, overrides)
    return str(caught.value).partition("\n")[0]


def spec_beside(file: Path, text: str, shards: str, **sections: Any) -> Path:
    """Write a file of code, and beside it the spec of two steps of SimCLR under these sections; return its path."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    spec: dict[str, Any] = {"name": "s", "method": "simclr", "data": {"train": shards, "val": shards}}
    spec |= {"backbone": BACKBONE, "train": {"duration": {"steps": 2}, "batch": 8}, "baselines": False} | sections
    path = file.with_name(f"{spec['name']}.yaml")
    path.write_text(yaml.safe_dump(spec))
    return path
