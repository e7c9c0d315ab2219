"""Training in bf16 with weights in parts has the digits of whole ones, also where norms of gradients scale its steps.

Autocast rounds the weights that are gathered as it rounds whole ones, once for all that reads them, and gradients are
exchanged in fp32. PyTorch adds the squares of a gradient in fp32, in as many parts as there are, which moves a norm of
a million numbers by 1e-5; ours are added in fp64.
Run as a script with a folder, this file forks two processes, which leave there what they end with.
"""

import os
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import pytest
import torch
from small import setting
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from selfsup.optim import build
from selfsup.parts import dist
from selfsup.sections import Optim
from selfsup.sharded import full, shard
from selfsup.train import read, split, train

pytestmark = pytest.mark.slow  # half a minute
STEPS = 6
CASES: dict[str, dict[str, object]] = {"mae": {}, "dino": {}}  # each weight read once; twice, and by a teacher
PLAIN, LEAST = Optim(lr=1e-3, lr_rule="none"), 0.02
KINDS = {
    "plain": PLAIN,
    "clipped": PLAIN.model_copy(update={"clip_norm": LEAST}),
    "each clipped": PLAIN.model_copy(update={"clip_each": LEAST / 10}),
    "lars": PLAIN.model_copy(update={"name": "lars"}),
}
Trained = dict[str, Tensor]  # weights by name, and the losses and norms of all steps


def trained(name: str, optim: Optim, *, in_parts: bool) -> Trained:
    method, batch = setting(name, "vit", **CASES[name])
    optimizer, module = build(method, optim), method
    if in_parts:
        shard(method, optimizer)
    else:
        module = DistributedDataParallel(method)
    own = repeat(split(batch, dist.world_size())[dist.rank()])
    options = {"steps": STEPS, "warmup_steps": 0, "batch_size": 8, "seed": 0}
    steps = train(module, method, optimizer, own, optim=optim, start=0, precision="bf16", **options)
    log = [(values["loss"], values["grad_norm"]) for values in map(read, steps)]
    weights = {path: full(weight.detach()).clone() for path, weight in method.named_parameters()}
    return weights | {"log": torch.tensor(log)}


def work(rank: int, folder: Path) -> None:
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {
        kind: {name: [trained(name, optim, in_parts=in_parts) for in_parts in (False, True)] for name in CASES}
        for kind, optim in KINDS.items()
    }
    torch.save(found, folder / f"{rank}.pt")
    destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Trained]]]:
    """Return what the first process found with whole weights, and with parts of them."""
    folder = tmp_path_factory.mktemp("gloo")
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, __file__, str(folder)], env=os.environ | environment, check=True, timeout=300)
    return torch.load(folder / "0.pt")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_digits_are_those_of_whole_weights(results: dict[str, dict[str, list[Trained]]], kind: str, name: str) -> None:
    whole, parts = results[kind][name]
    assert all(parts[path].equal(value) for path, value in whole.items())
    if kind == "clipped":
        assert whole["log"][:, 1].min() > 2 * LEAST, "in each step"


if __name__ == "__main__":
    start_processes(work, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
