"""Small data sets, whole and damaged; one Ray of two CPUs for the tests of a module."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.pipelines.data.manifest import Manifest, SampleReader
from selfsup.pipelines.data.pack import pack

Make = Callable[..., Manifest]
Spoil = Callable[..., None]
RAYS_OWN = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """What Ray warns of is no failure of a test that starts one."""
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
def make() -> Make:
    """(folder, number=...) -> a packed set of two classes: smooth images of all shapes from 24 to 30 pixels a side."""
    return _make


@pytest.fixture(scope="session")
def spoil() -> Spoil:
    """(manifest, numbers, keep=bytes): zeros over all but the first bytes of these samples; no size changes."""
    return _spoil


def _make(folder: Path, *, number: int, shard_size: int = 20, seed: int = 0) -> Manifest:
    draw = np.random.default_rng(seed)
    for each in range(number):
        coarse = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        place = folder / "images" / "ab"[each % 2] / f"{each:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((24 + each % 7, 24 + each // 7 % 7), Image.Resampling.BICUBIC).save(place)
    return pack(folder / "images", folder / "shards", shard_size=shard_size).manifest


def _spoil(told: Manifest, numbers: list[int], *, keep: int) -> None:
    names, index = told.shards["name"].to_pylist(), np.array(numbers)
    for shard, row, sample in zip(
        told.shard(index), told.rows.take(index), SampleReader(told, "image").read(index), strict=True
    ):
        with (Path(told.root) / names[shard]).open("r+b") as file:
            file.seek(row["start"] + row["length"] - len(sample.data) + keep)
            file.write(bytes(len(sample.data) - keep))
