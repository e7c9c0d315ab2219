"""A program: on each node of a cluster, two runs read one stream; prints what they got, and all rows were right."""

import json
import logging
import sys
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.shared import SharedFeed
from selfsup.pipelines.data.stream import SampleStream
from selfsup.views import Crop, Views

STEPS = 40


def taken(manifest: Manifest, reader: str) -> int:
    """Return the steps that a reader took from the server of its node; all of its rows are those of its own Feed."""
    order = SampleOrder(samples=manifest.num_samples, batch=8, seed=5, lanes=4, chunk=3, mix=2)
    stream = SampleStream(manifest, order, Views((Crop(size=96),)), STEPS)
    feed = Feed(stream, 0, 1, "threads", cpus=1.0, memory=6 * stream.step_bytes(4))
    shared = SharedFeed(feed, "nodes", reader, peers=2)
    for row, expected in zip(shared.steps(0), feed.steps(0), strict=True):
        assert row.keys() == expected.keys()
        assert all(np.array_equal(row[name], expected[name]) for name in row)
    return shared.taken


def main(folder: str) -> None:
    ray.init(logging_level=logging.ERROR)
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    manifest = load(folder)
    reading = {
        f"{node['NodeManagerAddress']} {reader}": ray.remote(taken)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(manifest, reader)
        for node in nodes
        for reader in ("one", "other")
    }
    json.dump({name: ray.get(task) for name, task in reading.items()}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
