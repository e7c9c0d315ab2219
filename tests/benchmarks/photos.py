"""Shards of synthetic photographs for benchmarks: JPEGs of 400 x 500 pixels and 60 to 110 KB, like those of the web.

A photograph's amplitude falls with the frequency to a power of 1 to 1.25, and its colors vary less than its luminance
(Field, "Relations between the statistics of natural images and the response properties of cortical cells", 1987).
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.pixels.coding import jpeg

SHARD, QUALITY = 64, 82


def shards(folder: Path, number: int) -> Manifest:
    """`number` photographs in shards of 64; made once."""
    out = folder / f"photos-{number}"
    if not (out / "manifest.json").exists():
        images = folder / "images"
        images.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            list(pool.map(_write, (images / f"{each:05d}.jpg" for each in range(number)), chunksize=16))
        pack(images, out, shard_size=SHARD)
    return load(str(out))


def photo(draw: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """-> (height, width, 3)"""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    amplitude = frequency ** -draw.uniform(1.0, 1.25)
    phase = np.exp(2j * np.pi * draw.random((3, *frequency.shape)))
    fields = np.fft.irfft2(amplitude * phase, s=(height, width))
    light, red, blue = fields / fields.std(axis=(1, 2), keepdims=True)
    colors = np.stack([light + 0.35 * red, light, light + 0.35 * blue], axis=2)
    return np.clip(118 + draw.uniform(40, 65) * colors, 0, 255).astype(np.uint8)


def _write(path: Path) -> None:
    draw = np.random.default_rng(int(path.stem))
    height, width = (500, 400) if draw.random() < 0.3 else (400, 500)
    path.write_bytes(jpeg(photo(draw, height, width), quality=QUALITY))
