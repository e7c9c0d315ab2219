"""Plans and refusals of specs that name code of the user's own."""

from pathlib import Path

import pytest

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
