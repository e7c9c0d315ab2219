"""Features of folders and shards by a saved encoder, on a real Ray: what is in the file, in which order."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny import BACKBONE, write_encoder

from selfsup import load_encoder
from selfsup.errors import CheckpointError, DataError, SpecError
from selfsup.pipelines import embed as module
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.embed import embed
from selfsup.sections import Backbone

pytestmark = pytest.mark.usefixtures("cluster")
NUMBER = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Path:
    """images: 30 PNGs in folders a and b, of which a/004.png is cut; shards of them whole; encoder.safetensors."""
    root = tmp_path_factory.mktemp("photos")
    make(root, number=NUMBER)
    whole = (root / "images" / "a" / "004.png").read_bytes()
    (root / "images" / "a" / "004.png").write_bytes(whole[:200])
    (root / "images" / "notes.txt").write_text("none")
    write_encoder(Backbone(**(BACKBONE | {"depth": 2})), root)
    return root


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 8)


def features(root: Path, names: list[str]) -> NDArray[np.float32]:
    """Return those of files, one at a time, by `load_encoder`, which rounds no resized pixel to 8 bits."""
    encoder = load_encoder(root / "encoder.safetensors")
    with torch.inference_mode():
        images = [torch.tensor(np.array(Image.open(root / "images" / name))).permute(2, 0, 1)[None] for name in names]
        return torch.cat([encoder(image) for image in images]).numpy()


def test_a_folder_of_images_becomes_a_row_each_in_order(photos: Path) -> None:
    out = photos / "features.parquet"
    result = embed(photos, str(photos / "encoder.safetensors"), str(photos / "images"), out)
    frame = pd.read_parquet(out)
    names = sorted(path.relative_to(photos / "images").as_posix() for path in (photos / "images").rglob("*.png"))
    assert frame["sample"].tolist() == [name for name in names if name != "a/004.png"]
    assert frame["label"].tolist() == [name[0] for name in frame["sample"]]
    assert list(frame.columns) == ["sample", "label", "feature"]
    expected = features(photos, frame["sample"].tolist())
    np.testing.assert_allclose(np.stack(frame["feature"].to_list()), expected, atol=0.05 * expected.std())
    assert list(result.unreadable) == ["a/004.png"]
    assert (result.samples, result.labelled, result.classes) == (NUMBER - 1, NUMBER - 1, 2)
    assert (result.features, result.left_out) == ({"feature": 32}, {".txt files": 1})
    made_by = json.loads(pq.read_schema(out).metadata[b"selfsup"])
    assert (made_by["encoder"], json.loads(made_by["stats"])["mean"]) == ("encoder", [0.4, 0.5, 0.6])
    assert not list(photos.glob("*.part"))


def test_shards_give_what_their_files_gave_by_layer(photos: Path) -> None:
    """All 30, by the keys in the shards; packing made JPEGs of PNGs."""
    out = photos / "shards.parquet"
    place = str(photos / "shards")
    result = embed(photos, str(photos / "encoder.safetensors"), place, out, layers="1,-1")
    frame = pd.read_parquet(out)
    assert frame["sample"].tolist() == [f"{'ab'[n % 2]}/{n:03d}" for n in [*range(0, NUMBER, 2), *range(1, NUMBER, 2)]]
    assert frame["label"].tolist() == ["a"] * 15 + ["b"] * 15
    assert list(frame.columns) == ["sample", "label", "feature_1", "feature_2"]
    readable = frame[frame["sample"] != "a/004"]
    expected = features(photos, [f"{name}.png" for name in readable["sample"]])
    found = np.stack(readable["feature_2"].to_list())
    assert np.abs(found - expected).mean() < 0.1 * expected.std()
    assert not np.allclose(np.stack(frame["feature_1"].to_list()), np.stack(frame["feature_2"].to_list()), atol=0.1)
    assert result.unreadable == {}
    embed(photos, str(photos / "encoder.safetensors"), place, photos / "again.parquet", layers="1,-1", batch=7)
    pd.testing.assert_frame_equal(pd.read_parquet(photos / "again.parquet"), frame, atol=1e-5)


def test_what_cannot_be_embedded_is_one_error(photos: Path, tmp_path: Path) -> None:
    encoder, out = str(photos / "encoder.safetensors"), tmp_path / "out.parquet"
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    shutil.copytree(photos / "shards", tmp_path / "bare")
    (tmp_path / "bare" / "manifest.json").unlink()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"")
    for place, message in {
        "nowhere": "nowhere: there is no such folder; expected images, or shards with a manifest",
        "empty": r"empty: no image in it; expected \.jpg",
        "texts": r"texts: no image in it, but 1 \.txt file;",
        "bare": "shards without a manifest, such as 000000.tar: run `selfsup shards index",
        "broken": "none of 1 samples can be read, such as a.png: an empty file",
    }.items():
        with pytest.raises(DataError, match=message):
            embed(tmp_path, encoder, str(tmp_path / place), out)
    images = str(photos / "images")
    with pytest.raises(SpecError, match="layer 5: expected 1 to 2"):
        embed(tmp_path, encoder, images, out, layers="5")
    with pytest.raises(SpecError, match="--layers last: expected numbers such as 4,8,-1, or all"):
        embed(tmp_path, encoder, images, out, layers="last")
    with pytest.raises(SpecError, match="there is no folder"):
        embed(tmp_path, encoder, images, tmp_path / "none" / "out.parquet")
    with pytest.raises(CheckpointError, match="no run mae-1"):
        embed(tmp_path, "mae-1", images, out)
    assert not list(tmp_path.glob("out*"))
