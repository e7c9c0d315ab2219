"""What `selfsup export` writes, read by the libraries that it is for."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from selfsup import load_encoder
from selfsup.encoder import build
from selfsup.errors import CheckpointError, SpecError, TrackError
from selfsup.mlflow_store import sqlite_uri
from selfsup.pipelines.export import export, store
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.pretrained import notes
from selfsup.saved import save_encoder
from selfsup.sections import Backbone
from selfsup.track import Tracker

VIT = Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=8, width=32, depth=2, heads=2, pool="mean")
STATS = ImageStats(channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def finished(home: Path, backbone: Backbone) -> torch.nn.Module:
    """A home with the record of a run `mae-1` and its trained encoder, whose timm model is returned."""
    torch.manual_seed(1)
    encoder = build(backbone)
    for weight in encoder.trunk.parameters():
        torch.nn.init.normal_(weight, std=0.05)  # no initial weights of timm's
    stage = home / "stages" / "pretrain-1"
    stage.mkdir(parents=True)
    save_encoder(encoder, backbone, stage / "encoder.safetensors", notes=notes("image", STATS))
    remember(home, "mae-1", "pretrain-1")
    return encoder.trunk.eval()


def remember(home: Path, run_id: str, pretrain: str | None) -> None:
    (home / "runs").mkdir(exist_ok=True, parents=True)
    (home / "runs" / f"{run_id}.json").write_text(json.dumps({"pretrain": pretrain}))


@pytest.mark.parametrize("backbone", [VIT, Backbone(name="resnet18", image_size=32)], ids=lambda each: each.name)
def test_timm_takes_it_and_gives_the_same_features(tmp_path: Path, backbone: Backbone) -> None:
    trunk = finished(tmp_path, backbone)
    path = tmp_path / "out.safetensors"
    lines = export(tmp_path, "mae-1", path, to="timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "avg"}
    kwargs = sizes | {"fc_norm": False} if backbone.is_vit else {}
    theirs = timm.create_model(backbone.name, num_classes=0, **kwargs).eval()
    theirs.load_state_dict(load_file(path), strict=True)
    torch.testing.assert_close(theirs(IMAGES), trunk(IMAGES))
    told: dict[str, Any] = {}
    exec(lines, told)  # what it tells the user to type
    torch.testing.assert_close(told["model"].eval()(IMAGES), trunk(IMAGES))
    known = timm.data.resolve_model_data_config(told["model"])
    ours = {"input_size": (3, 32, 32), "crop_pct": 0.875, "interpolation": "bicubic"}
    ours |= {"mean": STATS.mean, "std": STATS.std}
    assert {name: known[name] for name in ours} == ours
    gray = told["transform"](Image.new("RGB", (50, 40), (51, 51, 51)))  # 0.2 everywhere, (0.2 - mean) / std
    torch.testing.assert_close(gray[:, 0, 0], torch.tensor([-1.0, -1.2, -4 / 3]))


def test_a_stem_that_timm_has_not(tmp_path: Path) -> None:
    small = Backbone(name="resnet18", image_size=32, stem="small")
    trunk, path = finished(tmp_path, small), tmp_path / "out.safetensors"
    with pytest.raises(SpecError, match="--to torch"):
        export(tmp_path, "mae-1", path, to="timm")
    with pytest.raises(SpecError, match="no folder s3:/bucket to write to"):
        export(tmp_path, "mae-1", Path("s3://bucket/encoder.safetensors"), to="torch")
    assert not path.exists()
    told: dict[str, Any] = {}
    exec(export(tmp_path, "mae-1", path, to="torch"), told)
    torch.testing.assert_close(told["encoder"].encoder.pooled(IMAGES), trunk(IMAGES))
    torch.testing.assert_close(load_encoder(path).encoder.pooled(IMAGES), trunk(IMAGES))


def test_what_has_no_encoder(tmp_path: Path) -> None:
    remember(tmp_path, "pixels-1", None)
    remember(tmp_path, "mae-2", "pretrain-2")
    path = tmp_path / "out.safetensors"
    with pytest.raises(CheckpointError, match=r"no run mae-3 .*there are: mae-2, pixels-1"):
        export(tmp_path, "mae-3", path, to="torch")
    with pytest.raises(CheckpointError, match="pixels-1 is a baseline"):
        export(tmp_path, "pixels-1", path, to="torch")
    with pytest.raises(CheckpointError, match="mae-2 has not finished training"):
        export(tmp_path, "mae-2", path, to="torch")
    assert not path.exists()


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (STATS.mean, STATS.std))
    return (images - mean) / std


CNN = Backbone(name="resnet18", image_size=32, width=8, stem="small")


@pytest.mark.parametrize("backbone", [VIT, CNN], ids=lambda each: each.name)
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_graph_takes_batches_of_any_size_and_normalizes_them(tmp_path: Path, backbone: Backbone, to: Any) -> None:
    trunk = finished(tmp_path, backbone)
    told: dict[str, Any] = {}
    path = tmp_path / f"out.{to}"
    exec(export(tmp_path, "mae-1", path, to=to), told)
    for number in (1, 5):
        images = torch.rand(number, 3, 32, 32)
        with torch.no_grad():
            expected = trunk(normalized(images))
            if to == "pt2":
                found = told["encoder"](images)
            else:
                assert isinstance(told["session"], onnxruntime.InferenceSession)
                found = torch.from_numpy(told["session"].run(None, {"samples": images.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=1e-3)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [path.name]


@pytest.mark.parametrize(
    "backbone",
    [
        VIT,
        VIT.model_copy(update={"pool": "cls"}),
        VIT.model_copy(update={"name": "vit_small_patch14_dinov2", "patch_size": 8}),  # with layer scale
    ],
    ids=["mean", "cls", "layer scale"],
)
def test_a_folder_of_transformers_is_read_by_automodel(tmp_path: Path, backbone: Backbone) -> None:
    """Image processor and model, as the printed lines use them, beside timm's own model."""
    trunk, told = finished(tmp_path, backbone), dict[str, Any]()
    lines = export(tmp_path, "mae-1", tmp_path / "vit", to="hf")
    exec(lines, told)
    pooling = lines.rpartition('"pt"))')[2]
    assert pooling == (".pooler_output" if backbone.pool == "cls" else ".last_hidden_state[:, 1:].mean(1)")
    photo = Image.fromarray((IMAGES[0] * 255).byte().permute(1, 2, 0).numpy()).resize((37, 37))
    prepared = told["processor"](photo, return_tensors="pt")
    central = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None, :, 2:34, 2:34] / 255  # 37 is 32 / 0.875, rounded
    torch.testing.assert_close(prepared["pixel_values"], normalized(central), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        expected = trunk(normalized(central))
        found = eval(f"model(**prepared){pooling}", told | {"prepared": prepared})
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet18", "resnet18 is no plain ViT: transformers' ViTModel cannot be it"),
        ("vit_small_patch14_reg4_dinov2", "has register tokens"),
        ("vit_base_patch16_clip_224", "has a norm before its blocks"),
        ("eva02_tiny_patch14_224", "is a Eva with blocks of its own"),
    ],
)
def test_what_transformers_vit_cannot_be_is_said(tmp_path: Path, name: str, why: str) -> None:
    vit = VIT.model_copy(update={"name": name})
    finished(tmp_path, vit if name != "resnet18" else Backbone(name=name, image_size=32, width=8))
    with pytest.raises(SpecError, match=why):
        export(tmp_path, "mae-1", tmp_path / "vit", to="hf")
    assert not (tmp_path / "vit").exists()


def test_what_a_format_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path, VIT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SpecError, match=r"--to onnx needs onnxscript: pip install 'selfsup\[onnx\]'"):
        export(tmp_path, "mae-1", tmp_path / "out.onnx", to="onnx")


@pytest.fixture
def _no_uri_stays() -> Iterator[None]:
    """The lines that `store` prints set MLflow's URI for the whole process, and for those that it starts."""
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.usefixtures("_no_uri_stays")
def test_a_model_in_mlflow_is_loaded_by_its_flavors_and_gives_the_same_features(tmp_path: Path) -> None:
    trunk, tracker = finished(tmp_path, VIT), Tracker(sqlite_uri(tmp_path / "mlflow.db")).connect()
    with pytest.raises(TrackError, match="MLflow has no run mae-1"):
        store(tmp_path, "mae-1", tracker)
    tracker.open(id="mae-1", name="mae", experiment="tiny", params={}, tags={})
    told: dict[str, Any] = {}
    lines = store(tmp_path, "mae-1", tracker)
    exec(lines, told)
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        expected = trunk(normalized(images))
        torch.testing.assert_close(told["encoder"](images), expected)
    (uri,) = set(re.findall(r"models:/m-\w+", lines))
    found = mlflow.pyfunc.load_model(uri).predict(images.numpy())
    torch.testing.assert_close(torch.from_numpy(found), expected)
    assert mlflow.register_model(uri, "flowers").version == 1
    assert store(tmp_path, "mae-1", tracker) == lines, "again it is the same model"
