"""Fixtures of all tests: data sets, whole and damaged, and the Ray that tests share."""

import atexit
import gc
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import image_sets
import pytest
import torch
from one_ray import FilesAndRay, SharedRay, is_last, wants_ray

from selfsup.pipelines.data.manifest import Manifest

if TYPE_CHECKING:
    from plans import Home

    from selfsup.track import Tracker

RAYS_OWN = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")


SHARED_RAY = SharedRay()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while tests are collected, nor afterwards among the million objects that stay of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # for what looks then for objects that were never freed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no warning of Ray fail a test that starts one; those that share one come first."""
    for item in items:
        if wants_ray(item) or "nodes" in getattr(item, "fixturenames", ()):
            for warning in RAYS_OWN:
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"))
    items.sort(key=lambda item: not wants_ray(item))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesAndRay:
    return FilesAndRay(config, log)


@pytest.hookimpl(trylast=True)  # after fixtures that use it have ended
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if is_last(item, nextitem):
        SHARED_RAY.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch before each test and its fixtures: a test draws the same numbers in any order, on any worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def cluster() -> None:
    SHARED_RAY.start()


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
