"""Checkpoints of a run, a folder per step, so that after a crash, a full disk or damage the last good one remains.

A checkpoint holds the step, weights and buffers, the optimizer's state, and the resolved settings. It holds no random
state: the loop seeds every step, and the stream's random numbers are counter-based. Where weights are divided among
workers, each writes its parts to a file of its own, and any number of workers may read them all.
"""

import copy
import json
import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from selfsup.errors import CheckpointError
from selfsup.parts import dist
from selfsup.sealed import damage, sealed
from selfsup.settings import changed, flatten
from selfsup.sharded import divided, joined, own
from selfsup.tensors import mismatches
from selfsup.whole import SUFFIX, sweep, whole

PREFIX, FILE, PART = "checkpoint_", "state.pt", "part-{:05d}.pt"  # of another worker than the first
KINDS = {"step": int, "module": OrderedDict, "optimizer": dict, "resolved": dict}


class ResumePoint(NamedTuple):
    """step: steps done, 0 without a checkpoint. damaged: messages about later checkpoints that cannot be used."""

    step: int
    damaged: tuple[str, ...]


def save(
    root: Path,
    *,
    step: int,
    module: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    resolved: Mapping[str, Any],
    keep: int,
) -> None:
    """Write a checkpoint under `root` atomically, flushed to the disk; then remove all but the latest `keep`.

    All workers call it: each writes its parts of what is divided among them, the first one all else.
    module, optimizer: states of the method itself, not of its DistributedDataParallel wrapper, and of its optimizer.
    resolved: the settings that the weights depend on, nested and JSON-able; `resume` requires equal ones. Raises
    CheckpointError where it cannot be written.
    """
    path = root / _name(step)
    state = {
        "step": step,
        "module": module,
        "optimizer": optimizer,
        "resolved": dict(resolved),
    }
    parts = _leave_parts(path, state)
    if dist.rank():
        return
    _write(path, state, parts)
    checkpoints = _checkpoints(root)
    latest = [other for other in checkpoints if other <= path][-keep:]  # later ones are damaged: training passed them
    for other in set(checkpoints) - set(latest):
        shutil.rmtree(other, ignore_errors=True)


def _leave_parts(path: Path, state: Mapping[str, Any]) -> list[Path]:
    """Let each worker but the first write its parts beside a checkpoint to be; return the files once all are there."""
    if not (parts := divided(state)):
        return []
    files = [path.with_name(f"{path.name}.{PART.format(number)}{SUFFIX}") for number in range(dist.world_size())]
    if number := dist.rank():
        with _writing(path), whole(files[number]) as part, part.open("wb") as file:
            torch.save(own(parts), file)
    torch.distributed.barrier()
    return files[1:]


def _write(path: Path, state: Mapping[str, Any], parts: Sequence[Path]) -> None:
    with _writing(path):
        sweep(path.parent)
        with sealed(path) as folder:
            with (folder / FILE).open("wb") as file:
                torch.save(own(state), file)
            for number, part in enumerate(parts, start=1):
                part.rename(folder / PART.format(number))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder of a checkpoint's file. Raises CheckpointError where the block cannot write."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError) as error:
        # torch's writer hides the disk's error behind its own RuntimeError
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(
            f"{path}: cannot write the checkpoint of step {int(path.name[len(PREFIX) :])}: {reason}; "
            "the checkpoint before it is kept. Make room and start the run again: it continues from there"
        ) from error


def resume(root: Path, *, module: nn.Module, optimizer: Optimizer, resolved: Mapping[str, Any]) -> ResumePoint:
    """Restore `module` and `optimizer` in place from the latest checkpoint under `root` that is undamaged and fits.

    Raises CheckpointError where there are checkpoints but none such, or where its settings differ from `resolved`.
    """
    damaged: list[str] = []
    for path in reversed(_checkpoints(root)):
        try:
            state = _read(path)
            if not (different := changed(resolved, state["resolved"])):
                _restore(path, state, module, optimizer)
                return ResumePoint(int(state["step"]), tuple(damaged))
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            raise _other_settings(path, different)
    if damaged:
        raise CheckpointError("\n".join([*damaged, "None can be continued; delete these folders to start anew"]))
    return ResumePoint(0, ())


def _checkpoints(root: Path) -> list[Path]:
    """Return the folders of checkpoints, sorted by step."""
    return sorted(root.glob(PREFIX + 9 * "[0-9]"))


def _other_settings(path: Path, different: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{path} belongs to another spec (there):\n  "
        + "\n  ".join(different)
        + "\nRestore these settings to continue it, or move the folder away to start anew"
    )


def _restore(path: Path, state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> None:
    """Load a state in place; of the optimizer its moments only: settings and schedule define its groups' options."""
    try:
        problem = "; ".join(_mismatches(state, module, optimizer))
        if not problem:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizer"]["state"]})
            return
    except Exception as error:  # torch raises many types on a corrupt state
        problem = f"{type(error).__name__}: {error}"
    raise CheckpointError(f"{path / FILE}: does not fit: {problem}")


def _mismatches(state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> Iterator[str]:
    if problem := mismatches(state["module"], module.state_dict()):
        yield f"weights: {problem}"
    both = optimizer.state_dict(), state["optimizer"]
    here, there = ([list(group["params"]) for group in optim["param_groups"]] for optim in both)
    if here != there:
        sizes = [" + ".join(str(len(group)) for group in groups) or "no" for groups in (there, here)]
        yield f"the optimizer has groups of {sizes[0]} weights; expected {sizes[1]}"
    elif problem := mismatches(*_moments(state["optimizer"]["state"], module, optimizer)):
        yield f"optimizer: {problem}"


def _moments(
    state: Mapping[int, Any], module: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the optimizer's moments by names of weights: those of a checkpoint, and those expected.

    Weights of a group that is still frozen have none.
    """
    titles = {weight: name for name, weight in module.named_parameters()}
    names = dict(enumerate(titles[weight] for group in optimizer.param_groups for weight in group["params"]))
    groups = [group["params"] for group in optimizer.state_dict()["param_groups"] if group.get("frozen_until")]
    frozen = {number for group in groups if not state.keys() & group for number in group}
    expected = {number: moments for number, moments in _state_after_step(optimizer).items() if number not in frozen}
    there, here = (
        {str(names.get(number, number)): own for number, own in moments.items()} for moments in (state, expected)
    )
    return dict(flatten(there)), dict(flatten(here))


def _state_after_step(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Return the optimizer's state after a step, by numbers of weights, computed on the meta device."""
    model = copy.copy(optimizer)
    model.state, model.param_groups = defaultdict(dict), []
    for group in optimizer.param_groups:
        weights = [torch.empty_like(weight, device="meta", requires_grad=True) for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        model.param_groups.append(group | {"params": weights, "fused": False})  # not supported on the meta device
    model.step()
    return dict(model.state_dict()["state"])


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises CheckpointError where it is damaged."""
    if reason := damage(path):
        raise CheckpointError(f"{path}: cannot read the checkpoint: {reason}")
    try:
        files = [path / FILE, *sorted(path.glob(PART.replace("{:05d}", "*")))]
        state, *parts = (torch.load(file, map_location="cpu", weights_only=True) for file in files)
        state = joined(state, parts)
    except Exception as error:  # torch raises many types on corrupt bytes
        raise CheckpointError(f"{path}: cannot read the checkpoint: {' '.join(str(error).split())}") from error
    if not isinstance(state, dict) or not _is_state(state, path):
        raise CheckpointError(f"{path}: cannot read the checkpoint: {FILE} holds something else")
    return state


def _is_state(content: dict[str, Any], path: Path) -> bool:
    if {name: type(content.get(name)) for name in KINDS} != KINDS or path.name != _name(content["step"]):
        return False
    try:
        json.dumps(content["resolved"])
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _name(step: int) -> str:
    return f"{PREFIX}{step:09d}"
