"""The whole state of a run in one file, written so that a crash or a full disk leaves the last good one.

The state is the step, the weights and buffers, the optimiser, and the spec they belong to. No random state is among
them: the loop seeds every step anew, and the stream's randomness is counted.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from selfsup.errors import CheckpointError
from selfsup.whole import whole

FILE = "state.pt"


def save(folder: Path, *, step: int, module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any]) -> None:
    """Write FILE in `folder`, whole and flushed to the disk; one that is already there is replaced in one stroke.

    module: the method itself, not its DistributedDataParallel wrapper. resolved: the settings that the weights depend
    on, nested and JSON-able; `load` insists on them. CheckpointError when it cannot be written.
    """
    path = folder / FILE
    state = {
        "step": step,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "resolved": dict(resolved),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, part.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # torch's writer covers the disk's error with a RuntimeError of its own
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of step {step}: {reason}; the checkpoint before it is kept. "
            "Make room and start the run again: it continues from there"
        ) from error


def load(folder: Path, *, module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any]) -> int:
    """Restore `module` and `optimizer` in place; the number of steps done.

    CheckpointError when the file is missing or damaged, or belongs to other settings; each of these is named.
    """
    path = folder / FILE
    state = _read(path)
    if different := differences(resolved, state["resolved"]):
        raise CheckpointError(
            f"{path} belongs to another spec (there):\n  "
            + "\n  ".join(different)
            + "\nRestore these settings to continue it, or move the folder away to start anew"
        )
    try:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by other code and does not fit: {error}; delete it to start anew"
        ) from error
    return int(state["step"])


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
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {error}; delete it to start anew") from error
    assert isinstance(state, dict)
    return state
