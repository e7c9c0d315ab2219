"""A trained encoder for use elsewhere."""

import shutil
from pathlib import Path
from typing import Literal

import timm

from selfsup import tensors
from selfsup.encoder import read_encoder, timm_kwargs
from selfsup.errors import CheckpointError, SpecError
from selfsup.pipelines.planned import record
from selfsup.stage import read_json
from selfsup.whole import whole


def export(home: Path, run_id: str, path: Path, *, to: Literal["timm", "torch"]) -> str:
    """Write the encoder of a finished run to `path`; return the lines of Python that read it.

    to: timm: for timm.create_model, which is tried here; torch: for selfsup.load_encoder, whatever the encoder.
    Raises CheckpointError for a run that is not there or not finished, SpecError for an encoder that timm has not.
    """
    weights = _weights(home, run_id)
    if not path.parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent} to write to")
    backbone, shape, _ = read_encoder(weights)
    lines = ["from selfsup import load_encoder", f"encoder = load_encoder({str(path)!r})"]
    if to == "timm":
        kwargs = timm_kwargs(backbone, shape)
        tensors.fill(timm.create_model(**kwargs), weights)
        told = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        lines = [
            "import timm, safetensors.torch",
            f"model = timm.create_model({told})",
            f"model.load_state_dict(safetensors.torch.load_file({str(path)!r}), strict=True)",
        ]
    with whole(path) as part:
        shutil.copyfile(weights, part)
    return "\n".join(lines)


def _weights(home: Path, run_id: str) -> Path:
    note = record(home, run_id)
    known = sorted(path.stem for path in note.parent.glob("*.json"))
    if run_id not in known:  # nor is a path one
        raise CheckpointError(f"no run {run_id} under {home}; there are: {', '.join(known) or 'none yet'}")
    key: str | None = read_json(note, pretrain=str | None)["pretrain"]
    if key is None:
        raise CheckpointError(f"{run_id} is a baseline: it has no trained encoder")
    weights = home / "stages" / key / "encoder.safetensors"
    if not weights.exists():
        raise CheckpointError(f"{run_id} has not finished training: run its spec again, then export")
    return weights
