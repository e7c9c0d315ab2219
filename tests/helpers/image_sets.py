"""Small data sets of images, whole and damaged."""

from pathlib import Path

import numpy as np
from PIL import Image

from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader


def make(folder: Path, *, number: int, shard_size: int = 20, seed: int = 0) -> Manifest:
    """Pack `number` smooth images of two classes, of all shapes from 24 to 30 pixels a side."""
    draw = np.random.default_rng(seed)
    for sample in range(number):
        coarse = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        path = folder / "images" / "ab"[sample % 2] / f"{sample:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((24 + sample % 7, 24 + sample // 7 % 7), Image.Resampling.BICUBIC).save(path)
    return pack(folder / "images", folder / "shards", shard_size=shard_size).manifest


def spoil(manifest: Manifest, numbers: list[int], *, keep: int) -> None:
    """Write zeros over all but the first `keep` bytes of these samples; no size changes."""
    names, index = manifest.shards["name"].to_pylist(), np.array(numbers)
    for shard, row, sample in zip(
        manifest.shard(index), manifest.rows.take(index), SampleReader(manifest, "image").read(index), strict=True
    ):
        with (Path(manifest.root) / names[shard]).open("r+b") as file:
            file.seek(row["start"] + row["length"] - len(sample.data) + keep)
            file.write(bytes(len(sample.data) - keep))
