"""Images a second, CPU and memory of the training stream, beside the machine's limit and what users pick instead.

python tests/benchmarks/stream.py FOLDER; with `pip install 'selfsup[bench]'` also DALI, MosaicML Streaming and LitData

All use all cores to make batches of uint8 crops of the same JPEGs, each in a process of its own; they take turns.
Machines drift by more than what is looked for, so what is compared is compared within a turn. In brackets: the limit's
CPU time an image, over that of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # who uses all cores does so by processes or threads of its own

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import photos
from contenders import ALL, LIMIT, TASKS, THREADS
from peers import PEERS
from stages import stages
from usage import SELDOM, Usage

from selfsup.views import Crop, Views

WAYS = ALL | PEERS
PHOTOS, SECONDS, WARMUP = 1024, 5.0, 3.0
TURNS = 5
LARGE, SMALL = Crop(size=224, scale=(0.4, 1.0)), Crop(size=96, scale=(0.05, 0.4))
VIEWS = {  # the crops of an objective's paper, and a batch
    "MAE, 224": (Views((Crop(size=224, scale=(0.2, 1.0)),)), 256),
    "SimCLR, 2 x 224": (Views((Crop(size=224),) * 2), 128),
    "DINO, 2 x 224 + 8 x 96": (Views((LARGE,) * 2 + (SMALL,) * 8), 64),
}


class Measured(NamedTuple):
    """Images a second; CPU milliseconds an image, of all processes; MiB at the peak, what they share counted once."""

    rate: float
    cpu: float
    memory: float


Turn = dict[tuple[str, str], Measured]  # by contender and objective


def measured(batches: Iterator[int]) -> Measured:
    """Measure batches as they come, after a warm-up. batches: the number of images in each."""
    since = time.perf_counter()
    next(batches)
    while time.perf_counter() - since < WARMUP:
        next(batches)
    usage, images = Usage(SELDOM), 0
    since, spent, cpu = time.perf_counter(), 0.0, usage.cpu()
    while spent < SECONDS:
        images += next(batches)
        spent = time.perf_counter() - since
    return Measured(images / spent, 1000 * (usage.cpu() - cpu) / images, usage.peak() / 2**20)


def apart(folder: Path, what: str, objective: str) -> Any:
    """In a process of its own, which prints the numbers last."""
    return spoken([sys.executable, __file__, str(folder), what, objective])


def spoken(command: list[str]) -> Any:
    """What a command says last, by `say`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def say(numbers: Any) -> None:
    sys.stdout.write(json.dumps(numbers) + "\n")


def one(folder: Path, what: str, objective: str) -> None:
    told = photos.shards(folder, PHOTOS)
    made = stages(told, *VIEWS[objective]) if what == "stages" else measured(WAYS[what](told, *VIEWS[objective]))
    say(made)


def typical(turns: list[Turn], name: str, objective: str) -> Measured:
    """The median of each number, over turns."""
    return Measured(*map(median, zip(*(turn[name, objective] for turn in turns), strict=True)))


def beside(turns: list[Turn], name: str, other: str, objective: str) -> tuple[float, float]:
    """Its rate over another's, and what an image costs the other in CPU over its own: medians over turns."""
    pairs = [(turn[name, objective], turn[other, objective]) for turn in turns]
    return median(own.rate / their.rate for own, their in pairs), median(their.cpu / own.cpu for own, their in pairs)


def table(turns: list[Turn], spent: dict[str, dict[str, float]]) -> Iterator[str]:
    for objective in VIEWS:
        columns = ("images/s", 9), ("of limit (CPU)", 16), ("CPU ms/image", 14), ("peak MiB", 10), ("ours over it", 14)
        yield f"\n{objective:<28}{''.join(name.rjust(width) for name, width in columns)}"
        for name in WAYS:
            rate, cpu, memory = typical(turns, name, objective)
            share, by_cpu = beside(turns, name, LIMIT, objective)
            over, _ = beside(turns, THREADS, name, objective)
            yield f"  {name:<26}{rate:9.0f}{share:9.2f} ({by_cpu:.2f}){cpu:14.2f}{memory:10.0f}{over:14.2f}"
        threads, tasks = typical(turns, THREADS, objective).cpu, typical(turns, TASKS, objective).cpu
        rest = {"copy and wait": threads - sum(spent[objective].values()), "serialize": tasks - threads}
        yield "  ms: " + ", ".join(f"{name} {value:.3f}" for name, value in (spent[objective] | rest).items())


def plot(turns: list[Turn], path: Path) -> None:
    figure, axes = plt.subplots(1, len(VIEWS), figsize=(12, 3), sharey=True, layout="constrained")
    names = list(reversed(WAYS))
    for axis, objective in zip(axes, VIEWS, strict=True):
        bars = axis.barh(names, [typical(turns, name, objective).rate for name in names])
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set(title=objective, xlabel="images/s")
        axis.margins(x=0.15)
    figure.savefig(path, dpi=150)


def main(folder: Path) -> None:
    photos.shards(folder, PHOTOS)
    turns = [
        {(name, objective): Measured(*apart(folder, name, objective)) for objective in VIEWS for name in WAYS}
        for _ in range(TURNS)
    ]
    spent = {objective: apart(folder, "stages", objective) for objective in VIEWS}
    sys.stdout.write("\n".join(table(turns, spent)) + "\n")
    plot(turns, folder / "stream.png")


if __name__ == "__main__":
    place, *case = sys.argv[1:]
    one(Path(place), *case) if case else main(Path(place))
