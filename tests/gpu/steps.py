"""Steps that must be the same: after a checkpoint bit for bit, and compiled as they are without."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat
from typing import Any

import small
import torch
from gpu.place import Row, Setup, attempt, placed
from gpu.values import cases

from selfsup import optim
from selfsup.contract import CONTRACTS, Example
from selfsup.method import Method
from selfsup.sections import Optim, Train
from selfsup.train import read, train

STEPS = 10
COMPILED = ("ijepa", "mae", "simclr", "dino", "dinov2")
TOLERANCE = 1e-3  # of losses of ten steps in fp32: a step's rounding, 1e-6, which training may double each time


def contracts(setup: Setup) -> Iterator[Row]:
    """Yield whether each objective keeps its contracts on the device, under deterministic algorithms.

    The last one is that steps after a checkpoint are, bit for bit, those without.
    """
    torch.use_deterministic_algorithms(True)
    for name, kind in cases(setup.tiny)[: 1 if setup.tiny else None]:
        yield attempt({"objective": name, "backbone": kind}, partial(_broken, name, kind, setup.device))
    torch.use_deterministic_algorithms(False)


def _broken(name: str, kind: str, device: str) -> Row:
    def example(seed: int) -> Example:
        return Example(*placed(*small.setting(name, kind, seed=seed), device))

    outcomes = {title: contract(example) for title, contract in CONTRACTS.items()}
    broken = {title: outcome for title, outcome in outcomes.items() if outcome}
    return {"ok": not broken, "broken": broken}


def compiler() -> Callable[[Method], Any] | None:
    """Return what compiles the trunk of an objective in place, as `train.compile` does; None where there is none."""
    if "compile" not in Train.model_fields or importlib.util.find_spec("selfsup.parts.units") is None:
        return None
    compiled: Callable[[Method], Any] = importlib.import_module("selfsup.parts.units").compile_units
    return compiled


def compiled(setup: Setup) -> Iterator[Row]:
    """Yield how far the losses of ten compiled steps are from those of steps that are not."""
    function = compiler()
    if function is None:
        yield {"skipped": "this tree has no train.compile"}
        return
    for name in COMPILED[: 1 if setup.tiny else None]:
        yield attempt({"objective": name}, partial(_compared, name, function, setup.device))


def _compared(name: str, function: Callable[[Method], Any], device: str) -> Row:
    plain, fast = losses(name, None, device), losses(name, function, device)
    error = max(abs(a - b) / max(abs(a), 0.1) for a, b in zip(plain, fast, strict=True))
    return {"ok": error <= TOLERANCE, "loss_error": error, "loss_limit": TOLERANCE}


def losses(name: str, function: Callable[[Method], Any] | None, device: str) -> list[float]:
    """Return the losses of ten steps on one batch, in fp32. function: what compiles the objective."""
    method, batch = placed(*small.setting(name, "vit"), device)
    settings = Optim(lr=1e-4, lr_rule="none")
    optimizer = optim.build(method, settings)
    if function:
        function(method)
    sizes: dict[str, Any] = {"start": 0, "steps": STEPS, "warmup_steps": 2, "batch_size": 8, "seed": 0}
    steps = train(method, method, optimizer, repeat(batch), optim=settings, **sizes)
    return [read(step)["loss"] for step in islice(steps, STEPS)]
