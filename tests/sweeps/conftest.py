"""Fixtures of runs that are braked, for tests of clusters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from selfsup.pipelines.data.manifest import Manifest


@pytest.fixture(scope="module")
def brake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("brake") / "brake"


@pytest.fixture(scope="session")
def braked_sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    from braked import sets_in

    return sets_in(tmp_path_factory.mktemp("sets"), make)
