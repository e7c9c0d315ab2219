"""Tensors in a safetensors file that carries a digest of them, wherever it is copied to."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from selfsup.errors import CheckpointError
from selfsup.whole import whole

DIGEST = "selfsup.digest"  # in the metadata
TOLD = 3  # names of each kind in a message


def save(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Whole or not at all. safetensors hold no channels-last tensors, such as CNNs have: they become contiguous."""
    dense = {name: value.contiguous() for name, value in state.items()}
    told = dict(metadata or {})
    with whole(path) as part:
        safetensors.torch.save_file(dense, part, metadata=told | {DIGEST: digest(dense, told)})


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file. CheckpointError where they are not those of the digest in it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot read tensors from it: {error}") from None
    written = told.pop(DIGEST, None)
    if written not in (None, digest(state, told)):
        raise CheckpointError(f"{path}: damaged: what it holds is not what was written; copy it again, or make it anew")
    return state, told


def digest(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of names, kinds, shapes, bytes, and what is told beside them."""
    total = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(state.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def fill(module: nn.Module, path: Path) -> None:
    """Load all of a module from a file. CheckpointError where that is damaged, or holds anything but its state."""
    state, _ = load(path)
    if wrong := misfits(state, module.state_dict()):
        raise CheckpointError(f"{path}: does not fit: {wrong}; remove {path.parent} and run the spec again")
    module.load_state_dict(state)


def shape(value: Any) -> str:
    return str(tuple(value.shape))


def form(value: Any) -> str:
    """(2, 3) float32"""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{shape(value)} {str(value.dtype).removeprefix('torch.')}"


def misfits(held: Mapping[str, Any], wanted: Mapping[str, Any], form: Callable[[Any], str] = form) -> str:
    """How one differs from the other in names and forms, in a few words; "" where it does not."""
    both = sorted(wanted.keys() & held.keys())
    forms = {name: (form(held[name]), form(wanted[name])) for name in both}
    kinds = {
        "lacks": [name for name in wanted if name not in held],
        "has beside": [name for name in held if name not in wanted],
        "has otherwise": [f"{name} {there} for {here}" for name, (there, here) in forms.items() if there != here],
    }
    return "; ".join(f"it {what} {_listed(names)}" for what, names in kinds.items() if names)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
