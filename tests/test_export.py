"""What `selfsup export` writes, read by the libraries that it is for."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from selfsup import load_encoder
from selfsup.encoder import build
from selfsup.errors import CheckpointError, SpecError
from selfsup.pipelines.export import export
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.pretrained import notes
from selfsup.saved import save_encoder
from selfsup.sections import Backbone

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
