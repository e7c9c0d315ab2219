"""CPU and wall time of runs that see the same crops: decoded once for all of them, or by each for itself.

python tests/benchmarks/sweep.py FOLDER

First readers alone, as many as a sweep has trials at a time, each a process that spends a fixed time on every step, as
one that waits for its accelerator would. Then a sweep of two real trainings. CPU seconds are those of all processes,
Ray's own among them.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib

from selfsup.pipelines.cluster.auth import use_token

matplotlib.use("agg")
use_token()  # before ray is imported
import matplotlib.pyplot as plt
import photos
import ray
import yaml
from usage import Usage, seconds_of

from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.shared import SharedFeed
from selfsup.pipelines.data.stream import SampleStream
from selfsup.sweeps import session
from selfsup.sweeps.spec import sweepfile
from selfsup.track import store
from selfsup.views import Crop, Views

PHOTOS, BATCH, STEPS = 1024, 64, 60
PACE = 0.1  # seconds that a reader spends on a step: 640 images a second
READERS = (1, 2, 4, 8)
HOW = ("shared", "private")
MEMORY = 2**28  # bytes of a Feed, and of a window
SWEEP: dict[str, Any] = {
    "name": "bench",
    "method": "simclr",
    "backbone": {"name": "vit_tiny_patch16_224", "patch_size": 32, "width": 32, "depth": 1, "heads": 2},
    "train": {"duration": {"steps": STEPS}, "batch": BATCH},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.5, "data_cpus": 0.5, "data_memory": MEMORY // 2**20},
    "ablate": {"hyper.temperature": [0.1, 0.5]},
}


class Spent(NamedTuple):
    """Seconds of the clock, and of CPU. shared: the share of all steps that somebody else had made.

    hub: CPU seconds of the process that made them, of those of all; the rest is what Ray and the readers spend.
    """

    wall: float
    cpu: float
    shared: float
    hub: float = 0.0


@ray.remote(num_cpus=0)
class Reader:
    def read(self, shared: SharedFeed, how: str) -> int:
        """Steps that it was given."""
        for _ in (shared if how == "shared" else shared.feed).steps(0):
            time.sleep(PACE)
        return shared.taken


def readers(told: Manifest, how: str, actors: list[Any], usage: Usage) -> Spent:
    number = len(actors)
    stream = SampleStream(
        told, SampleOrder(samples=told.num_samples, batch=BATCH, seed=0), Views((Crop(size=224),)), STEPS
    )
    feed = Feed(stream, 0, 1, "threads", 1.0, MEMORY)
    each = [SharedFeed(feed, f"bench-{number}", str(name), number) for name in range(number)]
    if how == "shared":
        ray.get(each[0].server().__ray_ready__.remote())
    since, cpu = time.perf_counter(), usage.cpu()
    taken = ray.get([actor.read.remote(shared, how) for actor, shared in zip(actors, each, strict=True)])
    return Spent(
        time.perf_counter() - since, usage.cpu() - cpu, sum(taken) / (number * STEPS), seconds_of("ray::StreamServer")
    )


def trainings(told: Manifest, how: str, usage: Usage) -> Spent:
    """A sweep from its file to its report."""
    with TemporaryDirectory() as folder:
        os.environ["SELFSUP_HOME"] = f"{folder}/home"
        spec = SWEEP | {"data": {"train": told.root}, "stream": {"share": "auto" if how == "shared" else "never"}}
        Path(folder, "sweep.yaml").write_text(yaml.safe_dump(spec))
        since, cpu = time.perf_counter(), usage.cpu()
        _, failed = session.conduct(sweepfile.read(Path(folder, "sweep.yaml")), store())
        spent = time.perf_counter() - since, usage.cpu() - cpu
        assert not failed
        done = [json.loads(path.read_text()) for path in Path(folder).glob("home/stages/pretrain-*/done.json")]
    return Spent(*spent, sum(each["result"].get("shared_steps", 0.0) for each in done) / (2 * STEPS))


def table(found: dict[tuple[int, str], Spent], real: dict[str, Spent]) -> Iterator[str]:
    one = found[1, "private"]
    yield f"{'readers':<20}{'wall s':>8}{'CPU s':>8}{'of one':>8}{'hub s':>8}{'of one':>8}{'images/s':>10}{'shared':>8}"
    for (number, how), spent in found.items():
        rate, hub = number * STEPS * BATCH / spent.wall, f"{spent.hub:8.1f}{spent.hub / one.cpu:8.2f}" * bool(spent.hub)
        times = f"{spent.wall:8.1f}{spent.cpu:8.1f}{spent.cpu / one.cpu:8.2f}{hub:16}"
        yield f"{number}, {how:<17}{times}{rate:10.0f}{spent.shared:8.0%}"
    for how, spent in real.items():
        yield f"two trials, {how:<8}{spent.wall:8.1f}{spent.cpu:8.1f}{'':>34}{spent.shared:8.0%}"


def plot(found: dict[tuple[int, str], Spent], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, name, label in zip(axes, ("cpu", "wall"), ("CPU", "wall"), strict=True):
        for how in HOW:
            axis.plot(READERS, [getattr(found[number, how], name) for number in READERS], "o-", label=how)
        axis.set(xlabel="readers of one stream", ylabel=f"{label} seconds", xscale="log", xticks=READERS)
        axis.set_xticks(READERS, map(str, READERS))
        axis.minorticks_off()
        axis.set_ylim(0)
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main(folder: Path) -> None:
    told = photos.shards(folder, PHOTOS)
    ray.init(log_to_driver=False, logging_level=logging.ERROR)  # not forked: all its processes are our descendants
    actors = [Reader.remote() for _ in range(max(READERS))]  # type: ignore[attr-defined]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    usage = Usage()
    found = {(number, how): readers(told, how, actors[:number], usage) for number in READERS for how in HOW}
    for actor in actors:
        ray.kill(actor)
    real = {how: trainings(told, how, usage) for how in HOW}
    sys.stdout.write("\n".join(table(found, real)) + "\n")
    plot(found, folder / "sweep.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
