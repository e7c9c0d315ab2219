"""safetensors files with a digest of their tensors in the metadata."""

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

DIGEST = "selfsup.digest"  # key in the metadata
MAX_NAMES = 3  # of each kind in a message


def save(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors atomically. Channels-last tensors, which safetensors does not support, become contiguous."""
    dense = {name: value.contiguous() for name, value in state.items()}
    texts = dict(metadata or {})
    with whole(path) as part:
        safetensors.torch.save_file(dense, part, metadata=texts | {DIGEST: digest(dense, texts)})


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of any safetensors file. Raises CheckpointError where they do not match its digest."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot read tensors from it: {error}") from None
    written = metadata.pop(DIGEST, None)
    if written not in (None, digest(state, metadata)):
        raise CheckpointError(f"{path}: damaged: its content is not what was written; copy it again, or make it anew")
    return state, metadata


def digest(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return a digest of names, types, shapes, bytes and metadata."""
    total = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(state.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def fill(module: nn.Module, path: Path) -> None:
    """Load the state of a module from a file. Raises CheckpointError where it is damaged or does not fit."""
    state, _ = load(path)
    if problem := mismatches(state, module.state_dict()):
        raise CheckpointError(f"{path}: does not fit: {problem}; remove {path.parent} and run the spec again")
    module.load_state_dict(state)


def shape(value: Any) -> str:
    return str(tuple(value.shape))


def form(value: Any) -> str:
    """Return shape and type, as in `(2, 3) float32`."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{shape(value)} {str(value.dtype).removeprefix('torch.')}"


def mismatches(state: Mapping[str, Any], expected: Mapping[str, Any], form: Callable[[Any], str] = form) -> str:
    """Return how a state differs from the expected one in names and forms, "" where it does not."""
    both = sorted(expected.keys() & state.keys())
    forms = {name: (form(state[name]), form(expected[name])) for name in both}
    kinds = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "different": [f"{name} {there}, not {here}" for name, (there, here) in forms.items() if there != here],
    }
    return "; ".join(f"{kind}: {_shorten(names)}" for kind, names in kinds.items() if names)


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
