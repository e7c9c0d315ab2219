"""The whole state of a run, a folder a step, so that a crash, a full disk or a damaged file leaves the last good one.

The state is the step, the weights and buffers, the optimiser, and the spec they belong to. No random state is among
them: the loop seeds every step anew, and the stream's randomness is counted.
"""

import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from selfsup.errors import CheckpointError
from selfsup.sealed import damage, sealed
from selfsup.whole import sweep

PREFIX, FILE = "checkpoint_", "state.pt"
KINDS = {"step": int, "module": OrderedDict, "optimizer": dict, "resolved": dict}


class Resumed(NamedTuple):
    """step: steps done, 0 where there is no checkpoint. damaged: later checkpoints, each with what is wrong with it."""

    step: int
    damaged: tuple[str, ...]


def save(
    root: Path, *, step: int, module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any], keep: int
) -> None:
    """Write a checkpoint under `root`, whole and flushed to the disk; then leave only the latest `keep`.

    module: the method itself, not its DistributedDataParallel wrapper. resolved: the settings that the weights depend
    on, nested and JSON-able; `resume` insists on them. CheckpointError when it cannot be written.
    """
    path = root / _name(step)
    state = {
        "step": step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "resolved": dict(resolved),
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        with sealed(path) as folder, (folder / FILE).open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # torch's writer covers the disk's error with a RuntimeError of its own
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of step {step}: {reason}; the checkpoint before it is kept. "
            "Make room and start the run again: it continues from there"
        ) from error
    held = _held(root)
    kept = [each for each in held if each <= path][-keep:]  # a later one is damaged: training went on from before it
    for each in set(held) - set(kept):
        shutil.rmtree(each, ignore_errors=True)


def resume(root: Path, *, module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any]) -> Resumed:
    """Restore `module` and `optimizer` in place from the latest checkpoint under `root` that is whole.

    CheckpointError when there are some and none of them is whole, or when it belongs to other settings; each of these
    is named.
    """
    damaged: list[str] = []
    for path in reversed(_held(root)):
        try:
            state = _read(path)
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            _restore(path, state, module, optimizer, resolved)
            return Resumed(int(state["step"]), tuple(damaged))
    if damaged:
        raise CheckpointError("\n".join([*damaged, "No checkpoint is whole; delete these folders to start anew"]))
    return Resumed(0, ())


def _held(root: Path) -> list[Path]:
    """By step."""
    return sorted(root.glob(PREFIX + 9 * "[0-9]"))


def _restore(
    path: Path, state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any]
) -> None:
    if different := differences(resolved, state["resolved"]):
        raise CheckpointError(
            f"{path} belongs to another spec (there):\n  "
            + "\n  ".join(different)
            + "\nRestore these settings to continue it, or move the folder away to start anew"
        )
    try:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} was written by other code and does not fit: {error}; delete it to start anew"
        ) from error


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """One line for every path whose values differ: `optim.lr: 0.1 here, 0.2 there`."""
    ours, theirs = dict(flatten(here)), dict(flatten(there))
    return [
        f"{path}: {ours.get(path, 'absent')} here, {theirs.get(path, 'absent')} there"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path, _ABSENT) != theirs.get(path, _ABSENT)
    ]


_ABSENT = object()  # unlike None, no setting can have it as a value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings -> (dotted path, value)"""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(path: Path) -> dict[str, Any]:
    """What `save` wrote. CheckpointError, in a line, where it is not there as it was written."""
    if reason := damage(path):
        raise CheckpointError(f"{path}: cannot read the checkpoint: {reason}")
    try:
        state = torch.load(path / FILE, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that nobody wrote make torch raise anything
        raise CheckpointError(f"{path}: cannot read the checkpoint: {' '.join(str(error).split())}") from error
    if not isinstance(state, dict) or not _is_state(state, path):
        raise CheckpointError(f"{path}: cannot read the checkpoint: {FILE} holds something else")
    return state


def _is_state(held: dict[str, Any], path: Path) -> bool:
    if {name: type(held.get(name)) for name in KINDS} != KINDS or path.name != _name(held["step"]):
        return False
    try:
        json.dumps(held["resolved"])
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _name(step: int) -> str:
    return f"{PREFIX}{step:09d}"
