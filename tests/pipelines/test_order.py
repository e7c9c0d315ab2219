"""One order, whoever makes it: any number of workers, from one node or two, after a resume, with other CPUs.

Rows are compared by the keys of their samples and by their pixels, which no other crop would have.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from servers import object_store

from selfsup.pipelines.cluster.forkserver import fork_server
from selfsup.pipelines.data import storage
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.views import Crop, Views

SAMPLES, BATCH, STEPS = 70, 16, 14  # more than three epochs of 4 steps
MEMORY = 2**26
VIEWS = Views((Crop(size=12, scale=(0.4, 1.0)), Crop(size=8, scale=(0.1, 0.5))))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store("bucket") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Manifest:
    return make(tmp_path_factory.mktemp("set"), number=SAMPLES, shard_size=9)


@pytest.fixture(scope="module")
def nodes(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The ids of two nodes, of two CPUs each."""
    assert endpoint  # its keys are in the environment that the workers get
    # Cluster leaves its address in RAY_TMPDIR, where every ray.init() looks; paths of sockets must be short
    with TemporaryDirectory(prefix="ray-") as short, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_TMPDIR", short)
        with fork_server(Path(short)) as forking:
            with forking:
                cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
                cluster.add_node(num_cpus=2)
                ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield [node["NodeID"] for node in ray.nodes()]
            ray.shutdown()
            cluster.shutdown()


def stream_of(told: Manifest, **order: Any) -> SampleStream:
    lanes = SampleOrder(samples=told.num_samples, batch=BATCH, seed=5, lanes=8, chunk=3, mix=2)
    return SampleStream(told, replace(lanes, **order), VIEWS, STEPS)


def joined(rows: list[Columns]) -> Columns:
    return {name: np.stack([row[name] for row in rows]) for name in ("index", "epoch", "view0", "view1")}


def alone(stream: SampleStream, lanes: list[int], start: int = 0) -> Columns:
    return joined(list(stream.rows(lanes, start, stream.steps, threads=1, memory=MEMORY)))


def share(whole: Columns, rank: int, world: int, start: int = 0) -> Columns:
    """What a worker should be handed: the next rows of each batch, so that those of all in turn are the whole."""
    return {name: np.split(column[start:], world, axis=1)[rank] for name, column in whole.items()}


def same(one: Columns, other: Columns) -> None:
    for name in other:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def keys(told: Manifest, index: np.ndarray) -> list[str]:
    return [sample.key for sample in SampleReader(told, "image").read(index.ravel())]


@pytest.fixture(scope="module")
def whole(told: Manifest) -> Columns:
    return alone(stream_of(told), list(range(8)))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_any_number_of_workers_resumed_at_any_step(told: Manifest, whole: Columns, world: int) -> None:
    stream = stream_of(told)
    for rank in range(world):
        for start in (0, STEPS - 1 - rank, 5):
            same(
                alone(stream, list(stream.order.served_by(rank, world)), start),
                share(whole, rank, world, start),
            )


@pytest.mark.parametrize("remainder", ["drop", "wrap"])
def test_an_epoch_has_every_key_once_but_for_its_remainder(told: Manifest, remainder: str) -> None:
    """70 samples in steps of 16: drop gives 64 different ones; wrap gives 80, the first 10 of the epoch twice."""
    stream = stream_of(told, remainder=remainder)
    rows = alone(stream, list(range(8)))
    everything = set(keys(told, np.arange(SAMPLES)))
    for epoch in range(2):
        seen = keys(told, rows["index"][rows["epoch"] == epoch])
        assert set(seen) <= everything
        assert (len(seen), len(set(seen))) == ((64, 64) if remainder == "drop" else (80, SAMPLES))


def through_ray(nodes: list[str], stream: SampleStream, world: int, start: int, cpus: float) -> list[Columns]:
    """What the workers of a run are handed by Ray Data, each on the node that is its turn."""
    fed = ray.remote(lambda feed: list(feed.steps(start)))  # of nothing in this file, which workers cannot import
    asked = [
        fed.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[rank % len(nodes)], soft=False)
        ).remote(Feed(stream, rank, world, "ray", cpus, MEMORY))
        for rank in range(world)
    ]
    return [joined(rows) for rows in ray.get(asked)]


@pytest.mark.parametrize(
    ("world", "start", "cpus", "number"),
    [(1, 0, 2.0, 1), (2, 0, 2.0, 2), (4, 6, 0.5, 2)],
    ids=["one worker", "two nodes", "two nodes, resumed, less CPUs"],
)
def test_through_ray_data(
    nodes: list[str], told: Manifest, whole: Columns, world: int, start: int, cpus: float, number: int
) -> None:
    stream = stream_of(told)
    made = through_ray(nodes[:number], stream, world, start, cpus)
    for rank, rows in enumerate(made):
        same(rows, share(whole, rank, world, start))
    together = np.concatenate([rows["index"] for rows in made], axis=1)
    assert sorted(keys(told, together)) == sorted(keys(told, whole["index"][start:]))


def test_through_ray_data_from_an_object_store(nodes: list[str], endpoint: str, told: Manifest, whole: Columns) -> None:
    url = f"s3://bucket/set?endpoint_override={endpoint}&scheme=http"
    for path in Path(told.home).iterdir():
        storage.write(url, path.name, path.read_bytes())
    stream = stream_of(told)
    remote = replace(stream, manifest=load(url).with_cache(stream.order, cache=2**22))
    for rank, rows in enumerate(through_ray(nodes, remote, 2, 0, 2.0)):
        same(rows, share(whole, rank, 2))
    assert any(path.is_file() for path in Path(os.environ["SELFSUP_CACHE"], "pieces").rglob("*"))
