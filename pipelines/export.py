"""A trained encoder for use elsewhere, checked to give the same features there."""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from selfsup import tensors
from selfsup.encoder import timm_kwargs
from selfsup.errors import SelfsupError, SpecError, TrackError
from selfsup.modality import load as load_modality
from selfsup.pipelines import graphs, huggingface
from selfsup.pipelines.trained import find
from selfsup.pretrained import PretrainedEncoder, assembled, load_encoder
from selfsup.redact import redacted
from selfsup.saved import SavedEncoder
from selfsup.track import ID, Tracker
from selfsup.whole import whole

Format = Literal["timm", "torch", "hf", "onnx", "pt2"]
SUFFIXES = {"timm": ".safetensors", "torch": ".safetensors", "hf": "-hf", "onnx": ".onnx", "pt2": ".pt2"}
NEEDED = {"hf": ("transformers",), "onnx": ("onnx", "onnxscript", "onnxruntime")}  # modules, by the extra of that name
TOLERANCE = 1e-3  # of features, as a share of their deviation


def export(home: Path, source: str, path: Path | None, *, to: Format) -> str:
    """Write the encoder of a finished run, or of a file, to `path`; return the lines of Python that read it.

    to: timm: for timm.create_model; torch: for selfsup.load_encoder, whatever the encoder; hf: a folder for
    transformers' AutoModel; onnx: for onnxruntime; pt2: for torch.export.load. What is written is read back, and its
    features compared. Raises CheckpointError for a run that is not there or not finished, SpecError for an encoder that
    there is no such form of.
    """
    if missing := [name for name in NEEDED.get(to, ()) if importlib.util.find_spec(name) is None]:
        raise SpecError(f"--to {to} needs {', '.join(missing)}: pip install 'selfsup[{to}]'")
    trained = find(home, source)
    path = path or Path(f"{trained.name}{SUFFIXES[to]}")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"{path}: there is no folder {path.parent} to write to")
    saved = trained.saved
    model = assembled(saved, trained.path)
    with whole(path) as part, torch.no_grad():
        features = WRITERS[to](saved, model, part)
        _check(features, graphs.SizedEncoder(model)(graphs.example(model)), to)
    return "\n".join([f"# {path}: the encoder of {trained.name}", *LINES[to](saved, model, path)])


def store(home: Path, run_id: str, tracker: Tracker) -> str:
    """Store the encoder of a finished run as a model in MLflow, as a graph; return the lines of Python that read it.

    Raises CheckpointError as `export`, and TrackError where MLflow has no such run.
    """
    trained = find(home, run_id)
    runs = tracker.search_runs(f"tags.`{ID}` = '{trained.name}'")
    if not runs:
        raise TrackError(f"MLflow has no run {run_id}; expected the id of a run that was recorded there")
    model = trained.load()
    name, digest = trained.name, trained.path.parent.name
    key = tracker.model(runs[-1].info.run_id, name=name, path=str(trained.path), digest=digest)
    requirements = [f"torch=={version('torch')}"]
    tracker.upload_model(key, graphs.SizedEncoder(model), graphs.example(model).numpy(), requirements)
    return "\n".join(
        [
            "import mlflow",
            f"mlflow.set_tracking_uri({redacted(tracker.uri)!r})",
            f"encoder = mlflow.pytorch.load_model('models:/{key}')",
            f"# features = encoder(samples): {_sized(model)}",
            f"# in a registry: mlflow.register_model('models:/{key}', NAME)",
        ]
    )


def _check(theirs: Tensor, ours: Tensor, to: str) -> None:
    """Raise SelfsupError where features (B, D) differ."""
    difference, deviation = float((theirs - ours).abs().max()), float(ours.std())
    if not difference <= TOLERANCE * deviation:
        raise SelfsupError(f"--to {to}: features differ by {difference:.2g}, at a deviation of {deviation:.2g}")


def _write_torch(saved: SavedEncoder, model: PretrainedEncoder, path: Path) -> Tensor:
    tensors.save(saved.state, path, saved.metadata)
    return graphs.SizedEncoder(load_encoder(path))(graphs.example(model))  # type: ignore[no-any-return]


def _write_timm(saved: SavedEncoder, model: PretrainedEncoder, path: Path) -> Tensor:
    other = timm.create_model(**timm_kwargs(saved.backbone, saved.shape)).eval()
    tensors.save(saved.state, path, saved.metadata)
    tensors.fill(other, path)
    features: Tensor = other(model.normalized(graphs.example(model).movedim(1, -1)))
    return features


def _write_hf(saved: SavedEncoder, model: PretrainedEncoder, path: Path) -> Tensor:
    huggingface.write(model, saved.backbone.name, path)
    return huggingface.features(model, path, graphs.example(model))


def _write_onnx(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> Tensor:
    return graphs.write_onnx(model, path)


def _write_pt2(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> Tensor:
    return graphs.write_program(model, path)


def _torch_lines(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> list[str]:
    samples, shape = load_modality(model.view.modality).given
    return [
        "from selfsup import load_encoder",
        f"encoder = load_encoder({str(path)!r})",
        f"# features = encoder({samples}): {shape}",
    ]


def _timm_lines(saved: SavedEncoder, model: PretrainedEncoder, path: Path) -> list[str]:
    kwargs, is_image = timm_kwargs(saved.backbone, saved.shape), model.view.modality == "image"
    kwargs |= {"pretrained_cfg_overlay": _pretrained_cfg(model)} if is_image else {}
    settings = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    transform = "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    return [
        "import timm, safetensors.torch",
        f"model = timm.create_model({settings})",
        f"model.load_state_dict(safetensors.torch.load_file({str(path)!r}), strict=True)",
        *([transform] if is_image else []),
    ]


def _pretrained_cfg(model: PretrainedEncoder) -> dict[str, Any]:
    """Return how images are prepared, in timm's words."""
    view, stats = model.view, model.stats
    size = {"input_size": (stats.channels, *view.lengths), "crop_pct": getattr(view, "share", 1.0)}
    return size | {"interpolation": "bicubic", "mean": stats.mean, "std": stats.std}


def _hf_lines(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> list[str]:
    return [
        "from transformers import AutoImageProcessor, AutoModel",
        f"processor = AutoImageProcessor.from_pretrained({str(path)!r})",
        f"model = AutoModel.from_pretrained({str(path)!r}).eval()",
        f'# features = model(**processor(images, return_tensors="pt")){huggingface.pooling(model.encoder)}',
    ]


def _onnx_lines(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> list[str]:
    return [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        f'# features = session.run(None, {{"samples": samples}})[0]: {_sized(model)}',
    ]


def _pt2_lines(_: SavedEncoder, model: PretrainedEncoder, path: Path) -> list[str]:
    return [
        "import torch",
        f"encoder = torch.export.load({str(path)!r}).module()",
        f"# features = encoder(samples): {_sized(model)}",
    ]


def _sized(model: PretrainedEncoder) -> str:
    shape = ", ".join(map(str, (model.stats.channels, *model.view.lengths)))
    return f"(B, {shape}), floats in [0, 1]; mean and deviation are applied inside"


WRITERS = {"timm": _write_timm, "torch": _write_torch, "hf": _write_hf, "onnx": _write_onnx, "pt2": _write_pt2}
LINES = {"timm": _timm_lines, "torch": _torch_lines, "hf": _hf_lines, "onnx": _onnx_lines, "pt2": _pt2_lines}
