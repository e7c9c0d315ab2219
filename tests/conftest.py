"""Fixtures of all tests: data sets, whole and damaged, and a Ray of two CPUs for the tests of a module."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import image_sets
import pytest
import torch

from selfsup.pipelines.data.manifest import Manifest

if TYPE_CHECKING:
    from plans import Home

    from selfsup.track import Tracker

RAYS_OWN = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Let no warning of Ray fail a test that starts one."""
    for item in items:
        if {"cluster", "nodes"} & set(item.fixturenames):
            for warning in RAYS_OWN:
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch before each test and its fixtures: a test draws the same numbers in any order, on any worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    from selfsup.pipelines.cluster.ray_context import local_ray

    with local_ray(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def local_store(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[Path], Tracker]":
    """Return a function of a folder to a tracker of an empty store in it, whose schema takes seconds, once."""
    from selfsup.track import Tracker

    schema = tmp_path_factory.mktemp("schema") / "mlflow.db"
    Tracker(f"sqlite:///{schema}").connect()

    def connected(folder: Path) -> Tracker:
        return Tracker(f"sqlite:///{shutil.copyfile(schema, folder / 'mlflow.db')}").connect()

    return connected


@pytest.fixture(scope="session")
def make() -> Callable[..., Manifest]:
    return image_sets.make


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> str:
    """Return the folder of eight images as shards."""
    root = tmp_path_factory.mktemp("sets")
    make(root, number=8)
    return str(root / "shards")


@pytest.fixture(scope="session")
def spoil() -> Callable[..., None]:
    return image_sets.spoil


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small data sets, for plans."""
    from plans import make_sets

    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def home(tmp_path: Path, sets: Path) -> "Home":
    """Return a planner of small specs, in a folder of its own."""
    from plans import Home

    return Home(tmp_path, sets)
