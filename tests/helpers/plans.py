"""Plans of small specs on small data sets, whole, few, of one class and without labels."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from selfsup.encoder import build
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.shards import index
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.saved import save_encoder
from selfsup.sections import Backbone
from selfsup.spec import read

METHOD: dict[str, Any] = {
    "name": "photos",
    "method": "mae",
    "data": {"train": "train", "val": "val"},
    "backbone": {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "width": 32, "heads": 2},
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {"k": 3}, "linear": {}},
}

TINY = Backbone(**METHOD["backbone"])
PLACE = r"/spec\.yaml:\d+:\d+: "


def write_shards(folder: Path, *, classes: str, number: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for name in classes or ("",):
        (folder / "images" / name).mkdir(parents=True)
        for each in range(number):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{each}.png")
    pack(folder / "images", folder / "shards")


def relabelled(source: Path, out: Path, labels: str) -> None:
    """The images of some shards, with labels for as many of them as there are, and the same names of classes."""
    out.mkdir(parents=True)
    with tarfile.open(next(source.glob("*.tar"))) as old, tarfile.open(out / "0.tar", "w") as new:
        images = [member for member in old.getmembers() if member.name.endswith((".jpg", ".png"))]
        for number, member in enumerate(images):
            new.addfile(member, old.extractfile(member))
            if number < len(labels):
                label = tarfile.TarInfo(f"{member.name.rpartition('.')[0]}.cls")
                label.size = 1
                new.addfile(label, io.BytesIO(labels[number].encode()))
    index(str(out))


def make_sets(root: Path) -> Path:
    """Write data sets to a folder."""
    write_shards(root / "train", classes="ab", number=8, seed=0)
    write_shards(root / "val", classes="ab", number=2, seed=1)
    write_shards(root / "other", classes="ab", number=8, seed=2)
    write_shards(root / "foreign", classes="ac", number=2, seed=3)
    write_shards(root / "only_b", classes="b", number=2, seed=4)
    write_shards(root / "one", classes="a", number=16, seed=5)
    write_shards(root / "bare", classes="", number=16, seed=6)
    relabelled(root / "train" / "shards", root / "few" / "shards", labels="ab")
    return root


class Home:
    """Plans specs made of METHOD and changes to it, given as dotted paths."""

    def __init__(self, folder: Path, sets: Path) -> None:
        self.folder, self.sets = folder, sets

    def plan(self, **changes: Any) -> tuple[PlannedRun, ...]:
        spec: dict[str, Any] = yaml.safe_load(yaml.safe_dump(METHOD))
        for knob, value in changes.items():
            *sections, name = knob.split("__")
            place = spec
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
        for split, name in spec["data"].items():
            spec["data"][split] = name if name.startswith("/") else str(self.sets / name / "shards")
        file = self.folder / "spec.yaml"
        file.write_text(yaml.safe_dump(spec))
        return plan(read(file), self.folder)

    def run(self, **changes: Any) -> PlannedRun:
        return self.plan(**changes)[-1]


def weights(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    save_encoder(encoder := build(TINY), TINY, path)
    assert encoder.dim == 32
    return str(path)
