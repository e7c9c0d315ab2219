"""A training step of each objective beside that of lightly's example of it, for those that it has one of; on the CPU.

python tests/benchmarks/steps.py [OBJECTIVE ...]

Of LeJEPA and VISReg beside one of SimCLR of ours, on the same two views.

Taken in turn, at equal work, as in step.py. FLOP of matrix products and convolutions say how equal it is. Times are of
the process's CPU, which others on the machine change little.
"""

import platform
import sys
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import lightly_loops as examples
import torch
from loops import SIMCLR, Loop, Task, example, ours
from step import ROUNDS, Clock, Ratio, flops, in_turn

from selfsup.sections import Backbone

CNN = Backbone(name="resnet18", image_size=128)
VIT = Backbone(name="vit_small_patch16_224", image_size=128)
BATCH = {CNN: 16, VIT: 8}
CROPS = {"local_crops": 6, "local_size": 48}
MOVING = CROPS | {"freeze": 0.0}  # all layers, from the first step

TASKS = (
    Task("barlow", examples.barlow_twins, {"dim": 2048}, CNN),
    Task("byol", examples.BYOL, {"hidden": 1024}, CNN),
    Task("densecl", examples.DenseCL, {"hidden": 512, "queue": 4096, "split": 1}, CNN),
    Task("dino", examples.DINO, {"outputs": 2048, "hidden": 512, "bottleneck": 64, **MOVING}, CNN),
    Task("dinov2", examples.DINOv2, {"shared_head": True, **MOVING}, VIT),
    Task("ibot", examples.IBOT, MOVING, VIT),
    Task("mae", examples.MAE, {}, VIT),
    Task("moco", examples.moco, {"queue": 4096, "split": 1}, CNN),
    Task("msn", examples.MSN, CROPS, VIT),
    Task("nnclr", examples.NNCLR, {"hidden": 512, "predictor": 512, "dim": 128, "queue": 4096}, CNN),
    SIMCLR._replace(backbone=CNN),
    Task("simsiam", examples.SimSiam, {"dim": 512, "bottleneck": 64}, CNN),
    Task("swav", examples.SwAV, {"prototypes": 512, "hidden": 512, **MOVING}, CNN),
    Task("tico", examples.tico, {"hidden": 1024}, CNN),
    Task("vicreg", examples.vicreg, {"dim": 2048}, CNN),
)
TWO_VIEWS = (
    Task("lejepa", examples.simclr, {"local_crops": 0}, CNN),
    Task("visreg", examples.simclr, {"local_crops": 0, "large_crops": 2}, CNN),
)


def row(task: Task, other: Callable[..., Loop]) -> str:
    loops = {made: made(task, "cpu", BATCH[task.backbone], "fp32") for made in (ours, other)}
    work = [flops(loop) / 1e9 for loop in loops.values()]
    spent = in_turn({made.__name__: Clock(loop, "cpu", process_time) for made, loop in loops.items()})
    times = [1000 * median(step.total() for step in steps) for steps in spent.values()]
    columns = [f"{time:10.0f}" for time in times] + [f"{ratio:10.3f}" for ratio in Ratio.of(*spent.values())]
    return "".join([f"{task.method:<10}", *columns, *(f"{each:10.1f}" for each in work)])


def simclr(task: Task, *settings: Any) -> Loop:
    return ours(SIMCLR._replace(backbone=task.backbone), *settings)


def main(chosen: list[str]) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads on {platform.machine()}")
    print(f"ratio: median of {ROUNDS} pairs of neighboring steps; half of them are between low and high\n")
    for tasks, loop, title in ((TASKS, example, "lightly's"), (TWO_VIEWS, simclr, "SimCLR's")):
        asked = [task for task in tasks if task.method in chosen or not chosen]
        if asked:
            names = ("CPU, ms", title, "ratio", "low", "high", "GFLOP", title)
            print(" " * 10 + "".join(f"{name:>10}" for name in names))
        for task in asked:
            print(row(task, loop), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
