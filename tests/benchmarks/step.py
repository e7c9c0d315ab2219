"""A training step of ours beside that of what a user would pick instead; `make check-gpu` has steps of ours on a GPU.

python tests/benchmarks/step.py ["I-JEPA ViT-S/16" ...]

Equal work: the same backbone, heads, batch, precision and optimizer, on images given as tensors. The two take turns,
step by step, so what else the machine does meets both. Memory is of a process that does nothing else.
"""

import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, Self

import loops
import torch
from loops import Loop
from torch.utils.flop_counter import FlopCounterMode

from selfsup.train import Precision

ROUNDS, WARMUP = 9, 2
PAIRS = {  # what is compared: our loop, theirs, whose theirs is
    "MAE ViT-S/16": ("mae", "vitmae", "transformers"),
    "VideoMAE ViT-S/16": ("videomae", "hf_videomae", "transformers"),
    "I-JEPA ViT-S/16": ("ijepa", "lightly_ijepa", "lightly"),
    "SimCLR ResNet-18": ("simclr", "lightly", "lightly"),
}
CPU_BATCH = {"MAE ViT-S/16": 8, "VideoMAE ViT-S/16": 2, "I-JEPA ViT-S/16": 8, "SimCLR ResNet-18": 16}
GPU_BATCH = 256
PHASES = ("forward", "backward", "optimizer", "rest")

Spent = Counter[str]  # seconds of each phase of a step


class Ratio(NamedTuple):
    """The ratio of two steps that are neighbors in time; half of the ratios lie between low and high."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[Spent], theirs: Sequence[Spent]) -> Self:
        found = sorted(one.total() / other.total() for one, other in zip(ours, theirs, strict=True))
        quarter = len(found) // 4
        return cls(median(found), found[quarter], found[-1 - quarter])


class Demand(NamedTuple):
    """FLOP of a step; MiB at its peak: what a process grows by, or all tensors on a GPU."""

    flops: float
    memory: float


class Clock:
    """Takes steps and their time, told by hooks where phases end; `rest` is batch, seed and norm of the gradient."""

    def __init__(self, loop: Loop, device: str, now: Callable[[], float] = perf_counter) -> None:
        self._loop, self._cuda, self._now, self._marks = loop, device == "cuda", now, list[tuple[str, Any]]()
        loop.module.register_forward_pre_hook(self._at_end_of("rest"))
        loop.module.register_forward_hook(self._at_end_of("forward"))
        for weight in loop.module.parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(self._at_end_of("backward"))
        loop.optimizer.register_step_pre_hook(self._at_end_of("rest"))
        loop.optimizer.register_step_post_hook(self._at_end_of("optimizer"))

    def step(self) -> Spent:
        self._marks.clear()
        self._mark("")
        self._loop.step()
        self._mark("rest")
        if self._cuda:
            torch.cuda.synchronize()
        spent: Spent = Counter()
        for (_, before), (phase, now) in pairwise(self._marks):
            spent[phase] += before.elapsed_time(now) / 1000 if self._cuda else now - before
        return spent

    def _at_end_of(self, phase: str) -> Callable[..., None]:
        return lambda *_: self._mark(phase)

    def _mark(self, phase: str) -> None:
        mark: Any = torch.cuda.Event(enable_timing=True) if self._cuda else self._now()
        if self._cuda:
            mark.record()
        self._marks.append((phase, mark))


def compare(task: str, device: str, size: int, precision: Precision) -> None:
    *names, project = PAIRS[task]
    demands = {name: apart(demand, name, device, size, precision) for name in names}
    spent = in_turn({name: Clock(getattr(loops, name)(device, size, precision), device) for name in names})
    ratio = Ratio.of(*spent.values())
    print(f"\n{task}, {size} images, {precision} on {device}: {ratio.median:.3f} of what {project} takes")
    print(f"(median of {ROUNDS} pairs; half of them between {ratio.low:.3f} and {ratio.high:.3f})\n{header()}")
    for name, title in zip(names, ("selfsup", project), strict=True):
        print(row(title, spent[name], size, demands[name]))


def in_turn(clocks: dict[str, Clock]) -> dict[str, list[Spent]]:
    """One step of each in turn, first the one, then the other."""
    spent: dict[str, list[Spent]] = {name: [] for name in clocks}
    for number in range(WARMUP + ROUNDS):
        for name in clocks if number % 2 else reversed(clocks):
            spent[name].append(clocks[name].step())
    return {name: steps[WARMUP:] for name, steps in spent.items()}


def demand(name: str, device: str, size: int, precision: Precision) -> Demand:
    before = _memory("VmRSS")
    loop: Loop = getattr(loops, name)(device, size, precision)
    counted = flops(loop)
    loop.step()
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _memory("VmHWM") - before
    return Demand(counted, peak)


def flops(loop: Loop) -> float:
    """Return the floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        loop.step()
    return counter.get_total_flops()


def _memory(name: str) -> float:
    """MiB of this process, by its name in Linux's /proc."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """In a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result()


def header() -> str:
    columns = ("images/s", "ms a step", *PHASES, "GFLOP", "TFLOP/s", "MiB")
    return f"{'':<18}" + "".join(f"{column:>10}" for column in columns)


def row(name: str, spent: Sequence[Spent], size: int, needs: Demand) -> str:
    """Medians in milliseconds."""
    whole = median(step.total() for step in spent)
    times = [1000 * whole, *(1000 * median(step[phase] for step in spent) for phase in PHASES)]
    rates = [f"{needs.flops / 1e9:10.0f}{needs.flops / whole / 1e12:10.3f}{needs.memory:10.0f}"]
    return f"{name:<18}{size / whole:10.1f}" + "".join([*(f"{time:10.1f}" for time in times), *rates])


def main(chosen: list[str]) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads on {platform.machine()}")
    for task in chosen or PAIRS:
        compare(task, "cpu", CPU_BATCH[task], "fp32")
    if chosen or not torch.cuda.is_available():
        return
    for task in PAIRS:
        compare(task, "cuda", GPU_BATCH, "bf16")


if __name__ == "__main__":
    main(sys.argv[1:])
