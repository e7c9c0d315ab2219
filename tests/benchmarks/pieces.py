"""Memory and time of SimCLR's step on a small ViT: the whole batch at once, and the same batch in pieces.

    python tests/benchmarks/pieces.py [BATCH]

Each in a process of its own, on the CPU. Memory is what the process has grown by since its weights were made, at most:
activations, gradients, moments. Beside it what a plan says.
"""

import itertools
import platform
import resource
import sys
import time
from multiprocessing import get_context
from statistics import median

import torch

from selfsup import optim
from selfsup.batch import blank_batch
from selfsup.encoder import build
from selfsup.method import TrainInfo, load
from selfsup.pipelines.cost import cost
from selfsup.spec import Run, run_type
from selfsup.train import train
from selfsup.views import sized

STEPS = 4  # the first is not timed
INFO = TrainInfo(num_samples=10**6, num_classes=0, num_steps=STEPS, steps_per_epoch=10**6)
BACKBONE = {"name": "vit_tiny_patch16_224", "image_size": 64, "patch_size": 8}


def run(batch: int, pieces: int) -> Run:
    sections = {"method": "simclr", "seed": 0, "data": {"train": "none"}, "backbone": BACKBONE}
    length = {"duration": {"steps": STEPS}, "batch": batch, "accumulate": pieces}
    return run_type("simclr").model_validate(sections | {"train": length})


def measured(batch: int, pieces: int) -> tuple[float, float]:
    """MiB and seconds of a step"""
    told = run(batch, pieces)
    torch.manual_seed(0)
    method = load("simclr")(told.hyper, {"image": build(told.backbone)}, INFO)
    made = blank_batch(sized(method.views(told.hyper), told.backbone.image_size), method.backbone.patch, batch)
    for view in made.views:
        view.value.value.normal_()
    before, seconds, began = grown(), [], time.perf_counter()
    batches, moved = itertools.repeat(made), optim.build(method, told.optim)
    settings = {"start": 0, "steps": STEPS, "warmup_steps": 0, "batch_size": batch, "seed": 0, "accumulate": pieces}
    for _ in train(method, method, moved, batches, optim=told.optim, **settings):
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return grown() - before, median(seconds[1:])


def grown() -> float:
    """MiB, at most so far"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(batch: int) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads on {platform.machine()}, batches of {batch}\n")
    print(f"{'pieces':>6}{'MiB':>8}{'planned':>9}{'s a step':>10}{'GFLOP a sample':>16}")
    for pieces in (1, 2, 4, 8, 16, 32):
        with get_context("spawn").Pool(1) as alone:
            memory, seconds = alone.apply(measured, (batch, pieces))
        price = cost(run(batch, pieces), INFO)
        planned = (price.activation_bytes + price.state_bytes - 4 * price.parameters) / 2**20
        print(f"{pieces:>6}{memory:>8.0f}{planned:>9.0f}{seconds:>10.2f}{price.flops / 1e9:>16.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 128)
