"""The whole state of a run, a folder a step, so that a crash, a full disk or a damaged file leaves the last good one.

The state is the step, the weights and buffers, the optimiser, and the spec they belong to. No random state is among
them: the loop seeds every step anew, and the stream's randomness is counted.
"""

import copy
import json
import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from selfsup.errors import CheckpointError
from selfsup.sealed import damage, sealed
from selfsup.tensors import misfits
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
    """Restore `module` and `optimizer` in place from the latest checkpoint under `root` that is whole and fits them.

    CheckpointError when there are some and none of them is so, or when it belongs to other settings; each of these is
    named.
    """
    damaged: list[str] = []
    for path in reversed(_held(root)):
        try:
            state = _read(path)
            if not (different := differences(resolved, state["resolved"])):
                _restore(path, state, module, optimizer)
                return Resumed(int(state["step"]), tuple(damaged))
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            raise _foreign(path, different)
    if damaged:
        raise CheckpointError("\n".join([*damaged, "None can be continued; delete these folders to start anew"]))
    return Resumed(0, ())


def _held(root: Path) -> list[Path]:
    """By step."""
    return sorted(root.glob(PREFIX + 9 * "[0-9]"))


def _foreign(path: Path, different: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} belongs to another spec (there):\n  "
        + "\n  ".join(different)
        + "\nRestore these settings to continue it, or move the folder away to start anew"
    )


def _restore(path: Path, state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> None:
    """Of the optimiser its moments only; the rest of its groups is what the settings and the schedule say."""
    try:
        wrong = "; ".join(_misfits(state, module, optimizer))
        if not wrong:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizer"]["state"]})
            return
    except Exception as error:  # states that nobody wrote make torch raise anything
        wrong = f"{type(error).__name__}: {error}"
    raise CheckpointError(f"{path / FILE}: does not fit: {wrong}")


def _misfits(state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> Iterator[str]:
    if wrong := misfits(state["module"], module.state_dict()):
        yield f"of the weights {wrong}"
    both = optimizer.state_dict(), state["optimizer"]
    here, there = ([list(group["params"]) for group in held["param_groups"]] for held in both)
    if here != there:
        sizes = [" + ".join(str(len(group)) for group in groups) or "no" for groups in (there, here)]
        yield f"the optimiser has groups of {sizes[0]} weights, not of {sizes[1]}"
    elif wrong := misfits(*_moments(state["optimizer"]["state"], module, optimizer)):
        yield f"of the optimiser {wrong}"


def _moments(held: Mapping[int, Any], module: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an optimiser holds for each weight, by the weight's name: as it lies there, and as it has to be.

    Weights that do not move yet have nothing; those of a group begin together.
    """
    titles = {weight: name for name, weight in module.named_parameters()}
    names = dict(enumerate(titles[weight] for group in optimizer.param_groups for weight in group["params"]))
    groups = [group["params"] for group in optimizer.state_dict()["param_groups"] if group.get("frozen_until")]
    resting = {number for group in groups if not held.keys() & group for number in group}
    whole = {number: moments for number, moments in _stepped(optimizer).items() if number not in resting}
    there, here = (
        {str(names.get(number, number)): own for number, own in moments.items()} for moments in (held, whole)
    )
    return dict(flatten(there)), dict(flatten(here))


def _stepped(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """By the number of a weight, what the optimiser holds for it after a step; made without memory."""
    model = copy.copy(optimizer)
    model.state, model.param_groups = defaultdict(dict), []
    for group in optimizer.param_groups:
        weights = [torch.empty_like(weight, device="meta", requires_grad=True) for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        model.param_groups.append(group | {"params": weights, "fused": False})  # no fused step without memory
    model.step()
    return dict(model.state_dict()["state"])


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
