"""How tests of what is the user's own plan a spec, and read its first mistake."""

from pathlib import Path

import pytest

from selfsup.errors import SpecError
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.spec import read


def planned(spec: Path) -> PlannedRun:
    [run] = plan(read(spec), spec.parent.parent / "home")
    return run


def refused(spec: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(spec, overrides)
    return str(caught.value).partition("\n")[0]
