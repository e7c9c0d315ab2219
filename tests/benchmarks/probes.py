"""Time and memory of downstream protocols on features as many as ImageNet's: a twentieth, a tenth, and what follows.

    python tests/benchmarks/probes.py [MIB] [NAME ...]

Features lie on disk, as those of a run do, 384 channels of 1000 classes, 10,000 of them for validation. Protocols that
train do a stated part of their work; all else is at its defaults, but `resources.eval_memory` where MIB is given;
`attentive` reads 16 tokens a sample, all alike. Each in a process of its own, on the CPU, whose seconds are those of
all its threads. Memory is what the process adds of its own: pages of the file are the system's, which takes them back
where it lacks room. It ends with 1 where a protocol adds more than MOST, or grows by more than four copies of the tenth
that rates are chosen on.
"""

import platform
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup import evaluator
from selfsup.bounded import USUAL, bounded
from selfsup.evaluator import Features

WIDTH, CLASSES, VAL, IMAGENET, TOKENS = 384, 1000, 10_000, 1_281_167, 16
SIZES = IMAGENET // 20, IMAGENET // 10
MOST, PER_SAMPLE = 1536, 4 * 4 * WIDTH // 10  # MiB at a tenth of ImageNet; bytes of a sample more
PART: Mapping[str, dict[str, Any]] = {  # of the work of protocols that train
    "attentive": {"lrs": (1e-3,), "weight_decays": (5e-4,), "epochs": 1, "steps": 1},
    "corruptions": {"epochs": 1},
    "linear": {"epochs": 1},
    "linear_dino": {"epochs": 1, "steps": 1},
    "linear_dinov2": {"epochs": 1, "steps": 1},
    "linear_mae": {"epochs": 1, "steps": 1},
    "logistic": {"cs": (1.0,), "iterations": 5},
    "lowshot": {"per_class": (1,), "shares": (0.01,), "iterations": 5},
}
HEADER = f"{'protocol':<16}{'of its work':<74}{'samples':>10}{'s':>8}{'MiB':>7}{'growth':>8}{'s at 1.28 M':>13}"


def measured(name: str, size: int, folder: str, mib: float) -> tuple[float, float]:
    """Return seconds of CPU, and MiB at most beyond what the process held before."""
    protocol = evaluator.load(name)
    hyper = protocol.Hyper.model_validate(PART.get(name, {}))
    subject, choice = protocol(hyper), protocol.reads_of(hyper)
    features = Features(*drawn(size, folder), *drawn(VAL, folder), CLASSES)
    if choice.is_of_tokens:
        features = features._replace(train=tokens(features.train), val=tokens(features.val))
    own = (features.train if choice.split == "train" else features.val)[: choice.images]
    features = features._replace(views=np.broadcast_to(own, (choice.views, *own.shape)) if choice.views else None)
    before, peak = held(), Peak()
    began = time.process_time()
    with bounded(mib):
        dict(subject.run(features, seed=0))
    return time.process_time() - began, peak.stop() - before


def tokens(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) -> (N, TOKENS, D), of no more memory"""
    return np.broadcast_to(value[:, None], (len(value), TOKENS, WIDTH))


def drawn(size: int, folder: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features on disk around a center of each class, and labels."""
    draw = np.random.default_rng(size)
    label, center = np.arange(size) % CLASSES, np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    value = np.lib.format.open_memmap(Path(folder) / f"{size}.npy", "w+", np.float32, (size, WIDTH))
    for start in range(0, size, 4096):
        own = label[start : start + 4096]
        value[start : start + 4096] = center[own] + 3 * draw.normal(size=(len(own), WIDTH))
    value.flush()
    return value, label


class Peak:
    """The most memory that this process holds of its own until `stop`, in MiB."""

    def __init__(self) -> None:
        self._most, self._ended = held(), threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def stop(self) -> float:
        self._ended.set()
        self._watch.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, held())


def held() -> float:
    """MiB that belong to no file"""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def main(names: list[str]) -> bool:
    """Print a line for each size; return whether memory stays within its bounds."""
    pooled = [name for name in evaluator.names() if evaluator.load(name).reads == "pooled" or name == "attentive"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads on {platform.machine()}\n{HEADER}")
    is_bounded, mib = True, float(names.pop(0)) if names and names[0].isdigit() else USUAL
    for name in names or pooled:
        made = list[tuple[float, float]]()
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1) as alone:
                made.append(one := alone.apply(measured, (name, size, folder, mib)))
            print(f"{name:<16}{PART.get(name, '')!s:<74}{size:>10,}{one[0]:>8.1f}{one[1]:>7.0f}", end="", flush=True)
            print("" if len(made) == 1 else grown(made[0][0], one[0]))
        more = (made[1][1] - made[0][1]) * 2**20 / (SIZES[1] - SIZES[0])
        is_bounded &= made[1][1] <= MOST and more <= PER_SAMPLE
    return is_bounded


def grown(half: float, whole: float) -> str:
    """Return the exponent of the growth, and the seconds that follow from it for ImageNet."""
    exponent = np.log2(whole / half)
    return f"{exponent:>8.2f}{whole * (IMAGENET / SIZES[-1]) ** exponent:>13.0f}"


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
