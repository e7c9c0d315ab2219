"""What a stream over very many samples costs a worker, before its first step and later: numbers, no verdict.

python tests/benchmarks/scale.py

The data sets are made up as they are read: a file system of fsspec's kind, whose shards are all the same one. All that
is measured is real: the manifest's tables, the order, the planning of Ray Data's tasks, reads through a SampleReader.
"""

import io
import pickle
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from selfsup.pipelines.data import head, manifest, manifest_writer, rows, shard_rows, tars
from selfsup.pipelines.data.feed import Feed, StreamDatasource
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.views import Crop, Views

SIZES = [(100, 1000), (1000, 1000), (10_000, 1000), (100_000, 1000), (100_000, 10_000)]  # shards, samples of each
BATCH, EPOCHS, BATCHES = 1024, 100, 100
HEADER = f"{'samples':>14}{'shards':>9}{'steps':>11} | {'load s':>7}{'MiB':>6} | {'tasks':>6}{'KiB':>6}{'s':>6} | " + (
    f"{'first batch s':>14}{'ms a batch':>11}{'rows read MiB':>14}{'held MiB':>9}"
)


class Made(AbstractFileSystem):
    """Files of a data set of so many equal shards, none of which exists: made://shards-samples/set"""

    protocol = "made"
    image = b"\xff\xd8" + bytes(200)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, int]:
        shards, samples = path.partition("://")[2].partition("/")[0].split("-")
        return {"shards": int(shards), "samples": int(samples)}

    def __init__(self, shards: int, samples: int) -> None:
        super().__init__()
        self.rows_read, self.asked = 0, Counter[str]()
        self._shard = tars.write_tar(((f"{n}", "jpg", self.image, n % 1000) for n in range(samples)), mark="")
        scan = tars.scan(self._shard, name="")
        self._rows = np.zeros(samples, rows.ROW)
        self._rows["label"] = -1
        for name in ("start", "length"):
            self._rows[name] = scan.samples["image"].combine_chunks().field(name).to_numpy()
        names = [f"{number:06d}.tar" for number in range(shards)]
        columns = names, [samples] * shards, [len(self._shard)] * shards, [f"{n:032x}" for n in range(shards)]
        table = pa.table([pa.array(column) for column in columns], schema=shard_rows.SHARD_ROW)
        number = shards * samples
        self._header, self._tail = rows._header(number, rows.ROW), sums(self._rows, number)
        self._size = len(self._header) + shards * self._rows.nbytes + len(self._tail)
        sink = io.BytesIO()
        pq.write_table(table, sink)
        self._files = {head.NAME: self._head(table, number), shard_rows.SHARDS: sink.getvalue()}

    def _head(self, table: pa.Table, number: int) -> bytes:
        draft = manifest.Manifest(
            home="",
            root="",
            digest="",
            rows_digest=rows._digest(self._tail),
            num_samples=number,
            num_labelled=0,
            members=("jpg",),
            classes=(),
            fields={"image": ImageStats(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))},
            shards=table,
        )
        return manifest_writer.head_from(replace(draft, digest=manifest.digest(draft))).model_dump_json().encode()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = path.rpartition("/")[2]
        if name == rows.NAME:
            return {"name": path, "size": self._size, "type": "file"}
        return {"name": path, "size": len(self._files.get(name, self._shard)), "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        name = path.rpartition("/")[2]
        self.asked[name] += 1
        if name != rows.NAME:
            return self._files.get(name, self._shard)[start:end]
        assert start is not None
        assert end is not None
        if start < len(self._header) or end == self._size:
            return (self._header if start == 0 else self._tail)[: end - start]
        self.rows_read += end - start
        first, last = ((byte - len(self._header)) // rows.ROW.itemsize for byte in (start, end))
        return self._rows[np.arange(first, last) % len(self._rows)].tobytes()


fsspec.register_implementation("made", Made)


def sums(shard: rows.Table, number: int) -> bytes:
    """The checksums of all pages; pages that begin at the same sample of a shard are the same, but for the last."""

    @cache
    def one(first: int, length: int) -> bytes:
        return rows._sum(shard[np.arange(first, first + length) % len(shard)].tobytes())

    starts = range(0, number, rows.PAGE)
    return b"".join(one(first % len(shard), min(rows.PAGE, number - first)) for first in starts)


def measure(shards: int, samples: int) -> str:
    made = Made(shards=shards, samples=samples)  # fsspec keeps it for the next who asks for one like it
    before, start = held(), time.perf_counter()
    told = load(f"made://{shards}-{samples}/set")
    SampleReader(told, "image")
    loaded, kept = time.perf_counter() - start, held() - before
    order = SampleOrder(samples=told.num_samples, batch=BATCH, seed=0)
    steps = EPOCHS * order.steps_per_epoch
    stream = SampleStream(told, order, Views((Crop(size=224),)), steps)
    start = time.perf_counter()
    tasks = StreamDatasource(Feed(stream, 0, 1, "ray", 1.0, 2**30), 0).get_read_tasks(1)
    sent, planned = len(pickle.dumps(pickle.loads(pickle.dumps(tasks[0]._read_fn)))), time.perf_counter() - start
    times, reader = [], SampleReader(told, "image")
    for step in [steps // 2, *range(steps // 3, steps // 3 + BATCHES)]:
        start = time.perf_counter()
        index = np.concatenate([order.take(lane, step, step + 1)[1].ravel() for lane in range(order.lanes)])
        assert len(reader.read(index)) == BATCH
        times.append(time.perf_counter() - start)
    row = f"{told.num_samples:>14,}{shards:>9,}{steps:>11,} | {loaded:>7.2f}{kept:>6.0f} | "
    row += f"{len(tasks):>6}{sent / 1024:>6.1f}{planned:>6.2f} | {times[0]:>14.2f}{1000 * np.mean(times[1:]):>11.0f}"
    return row + f"{made.rows_read / 2**20:>14.0f}{held() - before:>9.0f}"


def held() -> float:
    """MiB of this process, as the system counts them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    if len(sys.argv) == 3:
        print(measure(int(sys.argv[1]), int(sys.argv[2])))
        return
    print(HEADER, flush=True)
    for shards, samples in SIZES:
        subprocess.run([sys.executable, __file__, str(shards), str(samples)], check=True)


if __name__ == "__main__":
    main()
