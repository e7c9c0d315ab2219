"""The contract that two processes do what one does: a step of an objective, its batch halved over gloo."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
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
        for kind in load(name).backbones:
            yield f"two processes do what one does, on a {kind}", _problem(name, kind, Path(folder))


def _problem(name: str, kind: str, folder: Path) -> str:
    """Return how processes fail, or what they compute otherwise than one does on every batch; "" for neither."""
    names: list[str] = []
    for seed in SEEDS:
        if not _path(folder, kind, seed, rank=0).exists() and (failure := _run(name, folder, seed)):
            return failure
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


def _run(name: str, folder: Path, seed: int) -> str:
    """Run the processes, which write their results to the folder; return how they failed, "" where they did not."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ExitStack() as stack:
        processes = []
        for rank in range(WORLD):
            command = [sys.executable, "-m", __spec__.name, name, str(folder), str(seed), str(rank)]
            errors = stack.enter_context((folder / f"{rank}.txt").open("w"))
            processes.append(subprocess.Popen(command, env=environment, stdout=errors, stderr=errors))
            stack.callback(processes[-1].kill)
        codes = [process.wait() for process in processes]
    failed = [rank for rank, code in enumerate(codes) if code]
    return f"process {failed[0]}: {_last_line(folder / f'{failed[0]}.txt')}" if failed else ""


def _last_line(path: Path) -> str:
    return (path.read_text().strip().splitlines() or ["it was killed"])[-1]


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


def main(name: str, folder: str, seed: int, rank: int) -> None:
    init_process_group(
        "gloo", init_method=f"file://{folder}/store-{seed}", rank=rank, world_size=WORLD, timeout=PATIENCE
    )
    for kind in load(name).backbones:
        results = {title: value.detach() for title, value in step(name, kind, seed).items()}
        torch.save(results, _path(Path(folder), kind, seed, rank))
    destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
