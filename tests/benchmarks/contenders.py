"""Ways from shards to batches of uint8 crops, each with all cores of this machine, as streams without an end.

Each takes shards, views and a batch, and yields the number of images in every batch that it has handed over.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import simplejpeg
import torch
import torchvision.transforms.v2 as T
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.views import CROP_DRAWS, Crop, Views, boxes

CORES = len(os.sched_getaffinity(0))
MEMORY = 2**29  # bytes that our streams may hold
KEPT = 256  # images that a bare loop has in memory
STEPS = 100_000  # more than can be taken
EPOCHS = 50  # likewise


def limit(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """A bare loop a core: whole decode of bytes in memory, crops that are drawn already, nothing handed over."""
    context = get_context("fork")
    done: Any = context.Queue()
    for core in range(CORES):
        context.Process(target=_loop, args=(told, views, batch, core, done), daemon=True).start()
    while True:
        yield done.get()


def _loop(told: Manifest, views: Views, batch: int, core: int, done: Any) -> None:
    draw = np.random.default_rng(core)
    images = [sample.data for sample in SampleReader(told, "image").read(draw.integers(told.num_samples, size=KEPT))]
    height, width = np.array([simplejpeg.decode_jpeg_header(data)[:2] for data in images]).T
    drawn = np.stack([boxes(crop, height, width, draw.random((KEPT, CROP_DRAWS))) for crop in views.specs], axis=1)
    while True:
        for number in draw.integers(KEPT, size=batch):
            image = simplejpeg.decode_jpeg(images[number], "RGB")
            for crop, box in zip(views.specs, drawn[number].astype(int).tolist(), strict=True):
                _cut(image, box, crop.size or 0)
        done.put(batch)


def _cut(image: NDArray[np.uint8], box: Sequence[int], size: int) -> Tensor:
    top, left, height, width = box
    part = torch.from_numpy(image[top : top + height, left : left + width].copy())
    return interpolate(part[None].permute(0, 3, 1, 2), (size, size), mode="bicubic", antialias=True)


def threads(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """Our stream, by threads of this process."""
    order = SampleOrder(samples=told.num_samples, batch=batch, seed=0)
    feed = Feed(SampleStream(told, order, views, STEPS), 0, 1, "threads", CORES, MEMORY)
    return (len(torch.from_numpy(columns["view0"])) for columns in feed.steps(0))


def tasks(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """Our stream, by Ray Data's tasks."""
    _start_ray()
    order = SampleOrder(samples=told.num_samples, batch=batch, seed=0)
    feed = Feed(SampleStream(told, order, views, STEPS), 0, 1, "ray", CORES, MEMORY)
    return (len(torch.from_numpy(columns["view0"])) for columns in feed.steps(0))


def webdataset(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """What a user would write: the webdataset library, Pillow, torchvision's transforms, torch's DataLoader."""
    crops = [_transform(crop) for crop in views.specs]
    data = wds.WebDataset(_shards(told), shardshuffle=100).repeat().shuffle(1000).decode("pil").to_tuple("jpg")
    data = data.map(lambda sample: [crop(sample[0]) for crop in crops]).batched(batch)
    return (len(views[0]) for views in DataLoader(data, batch_size=None, num_workers=CORES))


def ray_data(told: Manifest, views: Views, batch: int) -> Iterator[int]:
    """What its documentation shows: read_webdataset, map_batches with torchvision's transforms, iter_torch_batches."""
    _start_ray()
    crops = [_transform(crop) for crop in views.specs]

    def cut(columns: dict[str, Any]) -> dict[str, Any]:
        images = [Image.fromarray(image) for image in columns["jpg"]]
        return {f"view{v}": np.stack([crop(image).numpy() for image in images]) for v, crop in enumerate(crops)}

    data = ray.data.read_webdataset(_shards(told) * EPOCHS).map_batches(cut, batch_size=batch)
    return (len(columns["view0"]) for columns in data.iter_torch_batches(batch_size=batch))


def _transform(crop: Crop) -> T.Compose:
    size = crop.size or 0
    resized = T.RandomResizedCrop(size, scale=crop.scale, interpolation=T.InterpolationMode.BICUBIC)
    return T.Compose([resized, T.RandomHorizontalFlip(), T.PILToTensor()])


def _shards(told: Manifest) -> list[str]:
    return [str(path) for path in sorted(Path(told.root).glob("*.tar"))]


def _start_ray() -> None:
    ray.init(num_cpus=CORES, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


LIMIT, THREADS, TASKS = "bare loops (the limit)", "ours, threads", "ours, Ray tasks"
ALL: dict[str, Callable[[Manifest, Views, int], Iterator[int]]] = {
    LIMIT: limit,
    THREADS: threads,
    TASKS: tasks,
    "webdataset + DataLoader": webdataset,
    "Ray Data, as documented": ray_data,
}
