"""The contract that two processes do what one does: a step of an objective, its batch halved over gloo."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from selfsup.contract import BACKBONES, SAMPLES, example
from selfsup.method import load
from selfsup.parts import dist, norms
from selfsup.train import backward, split

WORLD = 2
SEEDS = (0, 1)  # of batches: what rounding moves across zero in one, it does not in the other; a fault is in both
GRADIENT = "the gradient of "
RELATIVE, ZERO = 1e-3, 1e-5  # what rounding makes of a norm; of one that is zero, as a share of the largest
FLIPPED = 3e-2  # what it makes of the norm of a gradient, where it takes a rectified value across zero
PATIENCE = timedelta(seconds=120)
Result = dict[str, Tensor]


def check(name: str) -> Iterator[tuple[str, str]]:
    """Yield the contract, on each kind of backbone, and how the method breaks it; "" where it keeps it."""
    with tempfile.TemporaryDirectory() as folder:
        failure = _run(name, Path(folder))
        for kind in load(name).backbones:
            yield f"two processes do what one does, on a {kind}", failure or _problem(name, kind, Path(folder))


def _problem(name: str, kind: str, folder: Path) -> str:
    """Return what processes compute otherwise than one does on every batch; "" where they do not."""
    names: list[str] = []
    for seed in SEEDS:
        names = _differing(step(name, kind, seed), _joined(folder, kind, seed))
        if not names:
            return ""
    return f"these differ: {', '.join(names)}; gather what a loss or a statistic reads of other samples"


def step(name: str, kind: str, seed: int) -> Result:
    """Return the loss, the gradients and the state of an objective after this process's part of a step."""
    method, batch = example(load(name), BACKBONES[kind], seed, WORLD * SAMPLES)
    module: nn.Module = method
    if dist.world_size() > 1:
        norms.convert(method)
        module = DistributedDataParallel(method, forward_sync_buffers=False)
    out = backward(module, split(batch, dist.world_size())[dist.rank()])
    with torch.no_grad():
        method.after_step(0.5, out.aux)
    grads = {GRADIENT + name: weight.grad for name, weight in method.named_parameters()}
    buffers = {name: value.float() for name, value in method.named_buffers() if "tracked" not in name}
    return {"the loss": out.loss} | {name: grad for name, grad in grads.items() if grad is not None} | buffers


def _run(name: str, folder: Path) -> str:
    """Run the processes, which write their results to the folder; return how they failed, "" where they did not."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __spec__.name, name, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return f"in two processes: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""


def _path(folder: Path, kind: str, seed: int, rank: int) -> Path:
    """Return the file of a process's results."""
    return folder / f"{kind}-{seed}-{rank}.pt"


def _joined(folder: Path, kind: str, seed: int) -> Result:
    """Return the mean of the results of all processes."""
    results: list[Result] = [torch.load(_path(folder, kind, seed, rank)) for rank in range(WORLD)]
    return {name: torch.stack([result[name] for result in results]).mean(dim=0) for name in results[0]}


def _differing(one: Result, several: Result) -> list[str]:
    """Return the names of results that differ by more than rounding does."""
    largest = max(value.norm() for value in one.values())
    return [
        name
        for name, value in one.items()
        if (several[name] - value).norm()
        > (FLIPPED if name.startswith(GRADIENT) else RELATIVE) * value.norm() + ZERO * largest
    ]


def work(rank: int, name: str, folder: Path) -> None:
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD, timeout=PATIENCE)
    try:
        for kind, seed in product(load(name).backbones, SEEDS):
            results = {title: value.detach() for title, value in step(name, kind, seed).items()}
            torch.save(results, _path(folder, kind, seed, rank))
    finally:  # else an error hangs at the end of a fork
        destroy_process_group()


if __name__ == "__main__":
    start_processes(work, (sys.argv[1], Path(sys.argv[2])), nprocs=WORLD, start_method="fork")  # type: ignore[no-untyped-call]
