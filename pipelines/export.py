"""A trained encoder for use elsewhere."""

from pathlib import Path
from typing import Any, Literal

import timm

from selfsup import tensors
from selfsup.encoder import timm_kwargs
from selfsup.errors import SpecError
from selfsup.pipelines.trained import TrainedEncoder, find
from selfsup.pretrained import preparation


def export(home: Path, source: str, path: Path | None, *, to: Literal["timm", "torch"]) -> str:
    """Write the encoder of a finished run, or of a file, to `path`; return the lines of Python that read it.

    to: timm: for timm.create_model, which is tried here; torch: for selfsup.load_encoder, whatever the encoder.
    Raises CheckpointError for a run that is not there or not finished, SpecError for an encoder that timm has not.
    """
    trained = find(home, source)
    path = path or Path(f"{trained.name}.safetensors")
    if not path.parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent} to write to")
    lines = {"timm": _timm, "torch": _torch}[to](trained, path)
    tensors.save(trained.saved.state, path, trained.saved.metadata)
    return "\n".join(lines)


def _torch(trained: TrainedEncoder, path: Path) -> list[str]:
    preparation(trained.saved.metadata, trained.path)
    return [
        "from selfsup import load_encoder",
        f"encoder = load_encoder({str(path)!r})",
        "# features = encoder(images): (B, C, H, W), uint8 or floats in [0, 1], of any size; see encoder.stats",
    ]


def _timm(trained: TrainedEncoder, path: Path) -> list[str]:
    saved = trained.saved
    kwargs = timm_kwargs(saved.backbone, saved.shape)
    tensors.fill(timm.create_model(**kwargs), trained.path)
    kwargs["pretrained_cfg_overlay"] = _pretrained_cfg(trained)
    settings = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    return [
        "import timm, safetensors.torch",
        f"model = timm.create_model({settings})",
        f"model.load_state_dict(safetensors.torch.load_file({str(path)!r}), strict=True)",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ]


def _pretrained_cfg(trained: TrainedEncoder) -> dict[str, Any]:
    """Return how images are prepared, in timm's words."""
    _, stats, crop = preparation(trained.saved.metadata, trained.path)
    shape = trained.saved.shape
    size = {"input_size": (shape.channels, *shape.sizes), "crop_pct": crop, "interpolation": "bicubic"}
    return size | {"mean": stats.mean, "std": stats.std}
