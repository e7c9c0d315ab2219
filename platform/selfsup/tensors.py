"""Tensors in a safetensors file that carries a digest of them, wherever it is copied to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from selfsup.errors import CheckpointError
from selfsup.whole import whole

DIGEST = "selfsup.digest"  # in the metadata


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
