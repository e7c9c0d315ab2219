"""The training loop. It knows neither Ray nor MLflow: batches come in, steps come out, and the caller does the rest."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from selfsup.encoder import Encoder
from selfsup.errors import NonFiniteError
from selfsup.method import Batch, Method, Out
from selfsup.optim import gradients, schedule
from selfsup.parts import dist
from selfsup.sections import Optim
from selfsup.sharded import norms

Precision = Literal["fp32", "bf16"]


class Step(NamedTuple):
    """A step. number: steps done, from 1. lr: its learning rate. log: scalars on the device, perhaps not there yet."""

    number: int
    lr: float
    log: dict[str, Tensor]


def train(
    module: nn.Module,
    method: Method,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    *,
    optim: Optim,
    start: int,
    steps: int,
    warmup_steps: int,
    batch_size: int,
    seed: int,
    precision: Precision = "fp32",
    accumulate: int = 1,
) -> Iterator[Step]:
    """Yield optimizer steps [start, steps), each when it is done, for the caller to read, to save, or to stop.

    module: `method`, or `method` wrapped in DistributedDataParallel. batches: this worker's, from step `start` on.
    batch_size: the global one, for the learning rate. Nothing here waits for the device; `read` does.
    accumulate: number of pieces in which a worker goes through its batch; the step is that of the whole batch.

    A step is a function of (weights, optimizer state, batch, seed, step): random layers such as drop-path are seeded
    anew for each step and worker, so a checkpoint needs no random state. Torch's global generator is seeded.
    """
    stream = iter(batches)
    module.train()
    micro_batches = cut(method, accumulate)
    for step in range(start, steps):
        torch.manual_seed(step_seed(seed, step, dist.rank()))
        out = backward(module, next(stream), precision=precision, accumulate=micro_batches)
        grad_norm = clip(optimizer, optim)
        lr = schedule(optimizer, optim, step, steps=steps, warmup=warmup_steps, batch=batch_size)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            method.after_step(step / steps, out.aux)  # the published schedules begin at exactly t = 0
        yield Step(step + 1, lr, {**out.log, "loss": out.loss, "grad_norm": grad_norm})


def read(step: Step) -> dict[str, float]:
    """Return the scalars of a step, averaged over the workers; all call it, at log steps and before a checkpoint.

    Raises NonFiniteError. The only place where the host waits for the device. A gradient that is not finite enters the
    weights and shows in the loss of every later step, so a check now and then is enough; that before a checkpoint keeps
    it out of there.
    """
    means = dist.mean(torch.stack([value.float() for value in step.log.values()])).tolist()
    log = dict(zip(step.log, means, strict=True))
    for name in ("loss", "grad_norm"):
        if not math.isfinite(log[name]):
            raise NonFiniteError(
                f"step {step.number}: {name} is {log[name]} at learning rate {step.lr:.3g}: "
                "lower optim.lr, lengthen optim.warmup, set optim.clip_norm, or train with train.precision=fp32"
            )
    return {**log, "lr": step.lr}


def cut(method: Method, pieces: int) -> int:
    """Return the micro-batches of a step. Where the loss is of the whole batch, encoders take `pieces` instead: 1."""
    if method.separable:
        return pieces
    for module in method.modules():
        if isinstance(module, Encoder):
            module.pieces = pieces
    return 1


def backward(module: nn.Module, batch: Batch, *, precision: Precision = "fp32", accumulate: int = 1) -> Out:
    """Add the gradient of the mean loss over `accumulate` micro-batches; return their outputs, joined and detached.

    Equals the whole batch at once for a loss that is a mean over samples of equal weight.
    """
    outs = []
    for number, micro in enumerate(split(batch, accumulate), start=1):
        with _exchanging(module, now=number == accumulate):
            with torch.autocast(batch.sample.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                out: Out = module(micro)
            (out.loss / accumulate).backward()  # type: ignore[no-untyped-call]
        outs.append(out)
    return _joined(outs)


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch of B samples into `parts` batches of B / parts samples each, in order."""
    size, rest = divmod(len(batch.sample), parts)
    assert rest == 0, "the spec checks that a worker's batch divides into micro-batches"
    return [_rows(batch, slice(start, start + size)) for start in range(0, parts * size, size)]


def clip(optimizer: Optimizer, optim: Optim) -> Tensor:
    """Scale gradients down as `optim` says; -> (): the norm over all parameters before that."""
    groups: defaultdict[str, list[Tensor]] = defaultdict(list)
    for group in optimizer.param_groups:
        groups[group["clip_group"]] += group["params"]
    totals = []
    for name, weights in groups.items():
        if not (grads := gradients(weights)):
            continue
        totals.append(torch.linalg.vector_norm(norms(grads)))
        if name and optim.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(weights, optim.clip_norm, totals[-1])
        if name and optim.clip_each is not None:
            _clip_each(grads, optim.clip_each)
    whole: Tensor = torch.linalg.vector_norm(torch.stack(totals))
    return whole


def _clip_each(grads: list[Tensor], longest: float) -> None:
    scales = (longest / (norms(grads) + 1e-6)).clamp_max(1.0)
    torch._foreach_mul_(grads, list(scales.unbind()))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return a well-mixed seed of 64 bits, so that neighboring seeds, steps and workers share nothing."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _rows(value: Any, rows: slice) -> Any:
    """Return these rows of every tensor in tuples and named tuples, however nested; other values as they are."""
    if isinstance(value, Tensor):
        return value[rows]
    if not isinstance(value, tuple):
        return value
    parts = [_rows(part, rows) for part in value]
    return tuple(parts) if type(value) is tuple else type(value)(*parts)


def _exchanging(module: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Let workers exchange gradients for the last micro-batch of a step only; those before it only add up."""
    if isinstance(module, DistributedDataParallel) and not now:
        return module.no_sync()
    return nullcontext()


def _joined(outs: list[Out]) -> Out:
    """Join the outputs of micro-batches: scalars are averaged, aux is concatenated along its samples."""
    loss = torch.stack([out.loss.detach() for out in outs]).mean()
    log = {name: torch.stack([out.log[name].detach() for out in outs]).mean() for name in outs[0].log}
    aux = {name: torch.cat([out.aux[name].detach() for out in outs]) for name in outs[0].aux}
    return Out(loss, log, aux)
