"""Images a second, use of the card, memory, and where time goes, of the steps that published numbers are of.

Batches of random pixels lie on the device: what is measured is the step. An image counts once, whatever its views.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, repeat
from typing import Any, NamedTuple

import small
import torch
from gpu.place import Row, Setup, attempt, placed
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from selfsup import encoder, optim
from selfsup.batch import Batch
from selfsup.contract import random_batch
from selfsup.method import Method, TrainInfo, load
from selfsup.sections import Backbone, Optim
from selfsup.train import Step, train
from selfsup.views import Views, sized

SMALL_MAE = {"mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}}
WARMUP, SECONDS, MOST = 3, 4.0, 40  # steps before the clock runs; how long it runs, and steps at most
PROFILED, TOP = 2, 8  # steps, and operations named
DATASHEET = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}  # FLOP/s in bf16, dense, of SXM boards
INFO = TrainInfo(num_samples=1_281_167, num_classes=1000, num_steps=10**9, steps_per_epoch=5004)
SETTINGS = Optim(name="adamw", lr=1e-4, weight_decay=0.05)
Compile = Callable[[Method], Any]


class Workload(NamedTuple):
    """A step. images: of a batch. target: images a second that are published for it on one H100 or H200."""

    method: str
    backbone: str
    images: int
    hyper: Mapping[str, Any] = {}
    target: float | None = None


WORKLOADS = (
    Workload("mae", "vit_base_patch16_224", 512),
    Workload("mae", "vit_large_patch16_224", 256),
    Workload("dinov2", "vit_large_patch16_224", 64, target=159.0),
    Workload("simclr", "vit_large_patch16_224", 128, target=481.0),
    Workload("simclr", "vit_small_patch16_224", 512),
    Workload("ijepa", "vit_huge_patch14_224", 128),
)


def rows(setup: Setup) -> Iterator[Row]:
    """Yield a row of each step, as it is written."""
    return table(setup, None)


def table(setup: Setup, compiled: Compile | None) -> Iterator[Row]:
    """Yield a row of each step. compiled: what compiles an objective's trunk in place; None: nothing is compiled."""
    peak = limit()
    for workload in {one.method: one for one in WORKLOADS}.values() if setup.tiny else WORKLOADS:
        name = "tiny" if setup.tiny else workload.backbone
        titles = {"objective": workload.method, "backbone": name, "target": workload.target}
        yield attempt(titles, partial(_fitting, workload, setup, compiled, peak))


def _fitting(workload: Workload, setup: Setup, compiled: Compile | None, peak: float | None) -> Row:
    """Measure on the largest batch that fits: as many images as asked for, or a half, a quarter ..."""
    images = 4 if setup.tiny else workload.images
    while True:
        if setup.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            return _measured(workload, images, setup, compiled, peak)
        except torch.OutOfMemoryError:
            if images == 1:
                raise
            images //= 2


def _measured(workload: Workload, images: int, setup: Setup, compiled: Compile | None, peak: float | None) -> Row:
    method, steps = stepped(workload, images, setup)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    if compiled:
        compiled(method)
    began = time.perf_counter()
    take(steps, WARMUP, setup.device)
    start = time.perf_counter() - began
    number, seconds = timed(steps, setup)
    used = counter.get_total_flops() * number / seconds
    return {
        "ok": True,
        "batch": images,
        "images_per_second": round(images * number / seconds, 1),
        "milliseconds": round(1000 * seconds / number, 2),
        "tflops": round(used / 1e12, 2),
        "mfu": round(used / peak, 4) if peak else None,
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if setup.device == "cuda" else None,
        "warmup_seconds": round(start, 1),
        "where": where(steps, setup.device),
    }


def stepped(workload: Workload, images: int, setup: Setup) -> tuple[Method, Iterator[Step]]:
    """Return an objective at its initial weights, and its steps on one batch."""
    method, views = objective(workload, setup)
    method, batch = placed(method, random_batch(views, method.backbone.patch, images), setup.device)
    return method, steps_on(method, repeat(batch))


def objective(workload: Workload, setup: Setup) -> tuple[Method, Views]:
    """Return an objective on the device, at its initial weights, and the views that it asks for."""
    torch.manual_seed(0)
    kind, tiny = load(workload.method), small.SMALL | SMALL_MAE
    backbone = small.BACKBONES["vit"] if setup.tiny else Backbone(name=workload.backbone)
    hyper = kind.Hyper(**(tiny.get(workload.method, {}) if setup.tiny else workload.hyper))
    with torch.device(setup.device):  # so that a large trunk is not drawn on the CPU
        method = kind(hyper, {"image": encoder.build(backbone, kind.initialize)}, INFO)
    return method.to(setup.device), sized(kind.views(hyper), backbone.image_size)


def steps_on(method: Method, batches: Iterator[Batch]) -> Iterator[Step]:
    """Return the steps of an objective in bf16 by AdamW."""
    sizes: dict[str, Any] = {"start": 0, "steps": INFO.num_steps, "warmup_steps": 0, "batch_size": 256, "seed": 0}
    optimizer = optim.build(method, SETTINGS)
    return train(method, method, optimizer, batches, optim=SETTINGS, precision="bf16", **sizes)


def timed(steps: Iterator[Step], setup: Setup) -> tuple[int, float]:
    """Take steps; return how many, and their seconds. The host waits for the device once, at the end."""
    began = time.perf_counter()
    take(steps, 1, setup.device)
    number = 1 if setup.tiny else max(3, min(MOST, int(SECONDS / (time.perf_counter() - began))))
    began = time.perf_counter()
    take(steps, number, setup.device)
    return number, time.perf_counter() - began


def take(steps: Iterator[Step], number: int, device: str) -> None:
    """Take steps, and wait until the device has done them."""
    for _ in islice(steps, number):
        pass
    if device == "cuda":
        torch.cuda.synchronize()


def where(steps: Iterator[Step], device: str) -> Row:
    """Return the share of each of the top operations in the device's time, and of the time in which it did nothing."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    began = time.perf_counter()
    with profile(activities=kinds) as profiler:
        take(steps, PROFILED, device)
        wall = 1e6 * (time.perf_counter() - began)
    spent = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, spent))
    total = sum(getattr(event, spent) for event in events) or 1.0
    top = {event.key[:80]: round(getattr(event, spent) / total, 4) for event in events[:TOP]}
    return {"idle": round(1 - min(1.0, busy(profiler) / wall), 4) if device == "cuda" else None, "top": top}


def busy(profiler: Any) -> float:
    """Return the microseconds in which the device ran at least one kernel or copy."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
    )
    return covered(spans)


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length that sorted spans cover, which may overlap."""
    length, last = 0.0, float("-inf")
    for start, end in spans:
        length += max(0.0, end - max(start, last))
        last = max(last, end)
    return length


def limit() -> float | None:
    """Return the FLOP/s in bf16 that the datasheet promises of the card; None of an unknown one, or a CPU."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for board, flops in DATASHEET.items() if board in name), None)


def matmul(side: int = 8192, times: int = 50) -> float:
    """Return the FLOP/s of the product of two bf16 matrices on the GPU."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for number in range(2 * times):
        if number == times:
            torch.cuda.synchronize()
            began = time.perf_counter()
        a @ b
    torch.cuda.synchronize()
    return 2 * side**3 * times / (time.perf_counter() - began)
