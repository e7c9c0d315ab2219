"""Ten training steps on our side: in one process or, where there is a process group, in each of several."""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import cycle, islice
from typing import NamedTuple

import torch
from precision import double_precision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from selfsup.batch import Batch
from selfsup.method import Method, load
from selfsup.optim import build
from selfsup.parts import dist, norms
from selfsup.sections import Optim
from selfsup.sharded import shard, whole
from selfsup.train import read, split, train

STEPS, WARMUP = 10, 2
Make = Callable[..., tuple[Method, Batch]]  # conftest's `setting`


class Trained(NamedTuple):
    """losses: of each step. state: weights and buffers after the last, by their names in our objective."""

    losses: list[float]
    state: dict[str, Tensor]


class Loop(NamedTuple):
    """Settings of ten steps, and the loop of the authors that they are to follow.

    reference: trains copies of the weights that it is given. batch: samples that the learning rate is for.
    shaken: all weights begin away from where they usually do, so that none is 0 or 1 and no teacher is its student.
    groups: parts of a batch that are batch-normalized apart, one on each of the authors' GPUs.
    """

    method: str
    optim: Optim
    reference: Callable[[Method, list[Batch]], Trained]
    hyper: Mapping[str, object] = {}
    backbone: str | None = None
    samples: int = 8
    batch: int = 8
    warmup: int = WARMUP
    shaken: bool = False
    groups: int = 1

    @property
    def encoder(self) -> str:
        """Return a kind of encoder that `setting` has: of a CNN the narrow one."""
        kind = self.backbone or load(self.method).backbones[0]
        return "narrow cnn" if kind == "cnn" else kind


def begin(loop: Loop, setting: Make, seed: int = 0) -> tuple[Method, list[Batch]]:
    """Return the objective at its initial weights, in double precision, and three batches."""
    method, _ = setting(loop.method, loop.encoder, samples=loop.samples, double=True, seed=seed, **loop.hyper)
    if loop.shaken:
        with torch.no_grad():
            for weight in method.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    return method, list(_batches(setting, loop.method, loop.encoder, loop.samples, *loop.hyper.items()))


@cache
def _batches(setting: Make, method: str, backbone: str, samples: int, *hyper: tuple[str, object]) -> list[Batch]:
    asked = {"samples": samples, "double": True, **dict(hyper)}
    return [setting(method, backbone, seed=seed, **asked)[1] for seed in range(3)]


class Trainer:
    """An objective, its optimizer, and the batches of this process, as a worker has them."""

    def __init__(self, loop: Loop, setting: Make, seed: int = 0) -> None:
        self.loop = loop
        self.method, batches = begin(loop, setting, seed)
        self.module: nn.Module = self.method
        if dist.world_size() > 1 or loop.groups > 1:
            norms.convert(self.method, loop.groups, loop.samples // loop.groups)
        if dist.world_size() > 1:
            self.module = DistributedDataParallel(self.method, forward_sync_buffers=False)
        self.optimizer: Optimizer = build(self.method, loop.optim)
        self.batches = [split(batch, dist.world_size())[dist.rank()] for batch in batches]

    def shard(self) -> None:
        """Divide weights and moments among processes from now on."""
        self.module = self.method
        shard(self.method, self.optimizer)

    def run(self, start: int = 0, stop: int = STEPS) -> list[float]:
        """Take steps [start, stop) of ten, and average statistics, as checkpoints do; return the mean losses."""
        sizes = {"steps": STEPS, "warmup_steps": self.loop.warmup, "batch_size": self.loop.batch, "seed": 0}
        batches = islice(cycle(self.batches), start, None)
        steps = train(self.module, self.method, self.optimizer, batches, optim=self.loop.optim, start=start, **sizes)
        with double_precision():
            losses = [read(step)["loss"] for step in islice(steps, stop - start)]
        norms.average_statistics(self.method)
        return losses

    def state(self) -> dict[str, Tensor]:
        """Return weights and buffers, whole, but for the numbers of batches that norms have counted."""
        state = whole(self.method.state_dict())
        return {name: value for name, value in state.items() if "num_batches" not in name}
