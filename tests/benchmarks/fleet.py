"""What 64 nodes of 8 GPUs would ask of the services around them, and what a stream over several nodes costs each.

python tests/benchmarks/fleet.py

Nodes are simulated: one after another does its part of the same steps, and the slowest is how long all would take. Real
are the order, the manifest of a billion samples in 100,000 shards, reads, caches, decoding, crops, the log of numbers,
and the plan; shards are made up as they are read (scale.py), and no GPU computes. Rates of the training are those that
are published; from them follow requests and writes a second.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from math import ceil
from multiprocessing import get_context
from pathlib import Path

import fsspec
import numpy as np
import yaml
from homes import spec
from PIL import Image
from scale import Made, held

from selfsup.metrics_log import MetricsLog
from selfsup.pipelines.data.feed import BLOCK_BYTES, Feed, StreamDatasource
from selfsup.pipelines.data.fetch import ReadOptions
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import READ_SAMPLES, SampleStream
from selfsup.resources import Resources
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.views import Crop, Views

NODES, GPUS, PER_GPU = 64, 8, 64  # samples of a step on each
SHARDS, SAMPLES = 100_000, 10_000
SIDE, QUALITY = 256, 90
MEAN_BYTES = 110_000  # of an image of ImageNet
RUNS = 10_000
CACHE = 16 * 2**30  # the default of stream.cache, of a node
RATES = {"ViT-L/16 by DINOv2": 159, "ViT-L/16 of two views": 481, "ViT-B/16 by MAE": 1977}  # images a second and GPU
TURNS = 3  # of which a node's least counts, as the slowest of many is else that of the worst moment
STEPS, VIEWS = 12, Views((Crop(size=224),))
VALUES, LOG_EVERY = 12, 10  # of a record; steps
MLFLOW, S3 = 809, 5500  # metrics a second of one server by batches; requests a second of a prefix, as S3 documents


class Photos(Made):
    """Files of a data set of equal photographs: photos://shards-samples/set"""

    protocol = "photos"

    def __init__(self, shards: int, samples: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=QUALITY)
        self.image = sink.getvalue()
        super().__init__(shards, samples)


fsspec.register_implementation("photos", Photos)


def stream_of(gpus: int, shards: int, samples: int, nodes: int) -> SampleStream:
    data = load(f"photos://{shards}-{samples}/set")
    order = SampleOrder(samples=data.num_samples, batch=PER_GPU * gpus, seed=0, lanes=gpus)
    return SampleStream(data.with_cache(order, CACHE, nodes), order, VIEWS, order.steps_per_epoch)


def part(nodes: int, node: int) -> float:
    """-> seconds of CPU that a node of so many spends on a step of its GPUs, whose number of samples is the same"""
    stream = stream_of(nodes * GPUS, 1000, 1000, nodes)
    feeds = [Feed(stream, node * GPUS + gpu, nodes * GPUS, "threads", 1.0, 2**28) for gpu in range(GPUS)]
    steps = [feed.steps(0) for feed in feeds]
    with tempfile.TemporaryDirectory() as folder:
        log = MetricsLog(Path(folder) / "metrics.jsonl") if node == 0 else None
        for number in range(1, 3 + STEPS):
            if number == 3:  # the first read pages of the manifest
                began = time.process_time()
            for rows in steps:
                next(rows)
            if log and number % LOG_EVERY == 0:
                log.append(number, dict.fromkeys(map(str, range(VALUES)), 1.0))
        return (time.process_time() - began) / STEPS


def efficiency(nodes: int) -> str:
    def seconds(*numbers: int) -> float:
        words = [sys.executable, __file__, *map(str, numbers)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    turns = [[seconds(1, 0), *(seconds(nodes, node) for node in range(nodes))] for _ in range(TURNS)]
    alone, *parts = map(min, zip(*turns, strict=True))
    slowest = max(parts)
    return f"| {nodes} | {alone:.2f} | {slowest:.2f} | {alone / slowest:.2f} |"


def requests(together: int) -> float:
    """-> requests to the store per sample of a GPU in the middle of an epoch. together: samples that one fetches"""
    options = ReadOptions(CACHE, together)
    data = replace(load(f"made://{SHARDS}-{SAMPLES}/set"), read_options=options)
    order = SampleOrder(samples=data.num_samples, batch=PER_GPU * GPUS * NODES, seed=0, lanes=GPUS * NODES)
    store, reader = fsspec.filesystem("made", shards=SHARDS, samples=SAMPLES), SampleReader(data, "image")
    middle, window = order.steps_per_epoch // 2, order.window // order.per_lane
    for first, last in ((middle - window, middle), (middle, middle + 2 * window)):  # the first fills the cache
        store.asked.clear()
        _, index = order.take(0, first, last)
        for numbers in index.reshape(-1, READ_SAMPLES):
            reader.read(numbers)
    return sum(number for name, number in store.asked.items() if name.endswith(".tar")) / index.size


def storage() -> None:
    order = SampleOrder(samples=SHARDS * SAMPLES, batch=PER_GPU * GPUS * NODES, seed=0, lanes=GPUS * NODES)
    print(f"in play: {order.in_play:,} samples, {order.in_play * MEAN_BYTES / NODES / 2**30:.1f} GiB a node\n")
    print("| images/s of a GPU | of all | GiB/s | requests/s by chunks | prefixes | by samples | prefixes |")
    print("|---|---|---|---|---|---|---|")
    shares = requests(order.chunk), requests(1)
    for name, rate in RATES.items():
        images = rate * NODES * GPUS
        asked = [f"{share * images:,.0f} | {ceil(share * images / S3)}" for share in shares]
        print(f"| {rate}, {name} | {images:,} | {images * MEAN_BYTES / 2**30:.1f} | {' | '.join(asked)} |")


def tracking() -> None:
    print(f"| runs of a GPU each | values/s at a record every {LOG_EVERY} steps | servers | log_every for one |")
    print("|---|---|---|---|")
    for name, rate in RATES.items():
        values = NODES * GPUS * rate / PER_GPU / LOG_EVERY * VALUES
        print(f"| {name} | {values:,.0f} | {values / MLFLOW:.1f} | {ceil(LOG_EVERY * values / MLFLOW)} |")


def driver() -> None:
    gpus, stream = NODES * GPUS, stream_of(NODES * GPUS, SHARDS, SAMPLES, NODES)
    feed = Feed(stream, 0, gpus, "ray", 1.0, Resources().data_memory * 2**20)
    began = time.perf_counter()
    source = StreamDatasource(feed, 0)
    seconds, tasks = time.perf_counter() - began, len(source.segments)
    print(f"Ray Data's tasks of a run on all GPUs: {gpus} x {tasks}, planned by the workers in {seconds:.2f} s each")
    size = max(BLOCK_BYTES, stream.step_bytes(len(feed.lanes)))  # of a block: a step here
    blocks = f"{gpus} x {stream.steps:,} blocks of {size / 2**20:.0f} MiB an epoch"
    print(f"its objects: {blocks}, {gpus} x {feed.memory // 2 // size} of them at once")
    print(f"actors of {gpus} runs of a GPU each: {4 * gpus} (trial, controller, server, worker)")
    with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1) as pool:
        seconds, memory = pool.apply(planned, (Path(folder), RUNS))
    print(f"plan of {RUNS:,} runs of ten stages: {seconds:.0f} s, {memory:.0f} MiB more in the driver")


def planned(folder: Path, runs: int) -> tuple[float, float]:
    """-> seconds of CPU, MiB"""
    file = folder / "many.yaml"
    file.write_text(yaml.safe_dump(spec(10 * runs), sort_keys=False))
    before, began = held(), time.process_time()
    _, kept = expand(sweepfile.read(file, ()), folder)
    assert len(kept) == runs
    return time.process_time() - began, held() - before


def main() -> None:
    if len(sys.argv) == 3:
        print(part(int(sys.argv[1]), int(sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SELFSUP_CACHE"] = cache
        print(
            "| nodes | s of CPU a step, one node alone | the slowest of so many | efficiency |\n|---|---|---|---|",
            flush=True,
        )
        for nodes in (2, 8):
            print(efficiency(nodes), flush=True)
        for show in (storage, tracking, driver):
            print(flush=True)
            show()


if __name__ == "__main__":
    main()
