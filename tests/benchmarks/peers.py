"""Other libraries' ways from the same JPEGs to batches of uint8 crops, each with all cores; of the extra `bench`.

Each stores the same bytes in its own format, once. Where a library leaves decoding to its user, torchvision decodes and
crops tensors, which is faster than Pillow.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.v2 as T
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.views import Crop, Views

CORES = len(os.sched_getaffinity(0))
EPOCH = 10**6  # samples: workers begin anew after each
CHUNK = "16MB"


def dali(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """NVIDIA DALI's pipeline on the CPU, by threads of its own; its decoder's defaults, which smooth no chroma."""
    from nvidia.dali import fn, pipeline_def, types

    shards = [str(path) for path in sorted(Path(told.root).glob("*.tar"))]

    @pipeline_def(batch_size=batch, num_threads=CORES, device_id=None, prefetch_queue_depth=2)
    def made() -> Any:
        data = fn.readers.webdataset(paths=shards, ext=["jpg"], random_shuffle=True, initial_fill=1024)
        drawn = {"interp_type": types.INTERP_CUBIC, "antialias": True}
        if len(views.specs) == 1:  # decodes no more than the crop
            [crop] = views.specs
            part = fn.decoders.image_random_crop(data, random_area=crop.scale, random_aspect_ratio=crop.ratio)
            return fn.flip(fn.resize(part, size=[crop.size] * 2, **drawn), horizontal=fn.random.coin_flip())
        image = fn.decoders.image(data)
        crops = [
            fn.random_resized_crop(
                image, size=crop.size, random_area=crop.scale, random_aspect_ratio=crop.ratio, **drawn
            )
            for crop in views.specs
        ]
        return tuple(fn.flip(crop, horizontal=fn.random.coin_flip()) for crop in crops)

    pipeline = made()
    pipeline.build()
    while True:
        yield min(len(view.as_array()) for view in pipeline.run())


def mosaic(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """MosaicML Streaming's StreamingDataset of MDS shards, in torch's DataLoader."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    folder = Path(told.root).parent / "mds"
    if not folder.exists():
        with MDSWriter(out=str(folder), columns={"jpeg": "bytes"}, size_limit=CHUNK.lower()) as writer:
            for data in _bytes(told):
                writer.write({"jpeg": data})

    class Photos(StreamingDataset):  # type: ignore[misc]  # untyped
        def __getitem__(self, at: Any) -> list[Tensor]:
            return cut(super().__getitem__(at)["jpeg"])

    cut = _cut(views)
    data = Photos(local=str(folder), batch_size=batch, shuffle=True, epoch_size=EPOCH)
    return (len(crops[0]) for crops in DataLoader(data, batch_size=batch, num_workers=CORES))


def litdata(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """LitData's StreamingDataset of chunks, in its StreamingDataLoader."""
    from litdata import ParallelStreamingDataset, StreamingDataLoader, StreamingDataset, optimize

    folder = Path(told.root).parent / "litdata"
    if not folder.exists():
        images = sorted((Path(told.root).parent / "images").glob("*.jpg"))
        optimize(Path.read_bytes, inputs=images, output_dir=str(folder), chunk_bytes=CHUNK, num_workers=1)
    photos = StreamingDataset(str(folder), shuffle=True, transform=_cut(views))
    data = ParallelStreamingDataset([photos], length=EPOCH)
    return (len(crops[0]) for [crops] in StreamingDataLoader(data, batch_size=batch, num_workers=CORES))


def _bytes(told: Manifest) -> Iterator[bytes]:
    for sample in SampleReader(told, "image").read(np.arange(told.num_samples)):
        yield bytes(sample.data)


def _cut(views: Views) -> Callable[[bytes], list[Tensor]]:
    return partial(_crops, [_transform(crop) for crop in views.specs])


def _crops(transforms: list[T.Compose], data: bytes) -> list[Tensor]:
    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    return [transform(image) for transform in transforms]


def _transform(crop: Crop) -> T.Compose:
    bicubic = T.InterpolationMode.BICUBIC
    resized = T.RandomResizedCrop(crop.size or 0, scale=crop.scale, ratio=crop.ratio, interpolation=bicubic)
    return T.Compose([resized, T.RandomHorizontalFlip()])


_ALL: dict[str, tuple[str, Callable[[Manifest, Views, int], Iterator[int]]]] = {
    "DALI": ("nvidia.dali", dali),
    "MosaicML Streaming": ("streaming", mosaic),
    "LitData": ("litdata", litdata),
}
PEERS = {name: way for name, (module, way) in _ALL.items() if find_spec(module.partition(".")[0]) and find_spec(module)}
