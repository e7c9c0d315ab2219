"""CPU milliseconds an image of what a step of our stream is made of, one after the other on one thread."""

import time
from collections.abc import Callable

import numpy as np
import torch

from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import CROP, uniform
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.modalities.pixels.crops import crops
from selfsup.pipelines.modalities.pixels.decode import decode_scaled, dimensions
from selfsup.views import CROP_DRAWS, Views, boxes, flips

IMAGES, ROUNDS = 512, 5


def stages(told: Manifest, views: Views, batch: int) -> dict[str, float]:
    """decode: of the whole image. crop: of all views, with their boxes drawn."""
    torch.set_num_threads(1)
    order, reader = SampleOrder(samples=told.num_samples, batch=batch, seed=0), SampleReader(told, "image")
    index = np.concatenate([order.take(lane, 0, IMAGES // batch)[1].ravel() for lane in range(order.lanes)])
    images = [sample.data for sample in reader.read(index)]
    sizes, filters = [crop.size or 0 for crop in views.specs], [crop.resample for crop in views.specs]

    def cut() -> None:
        height, width = np.array([dimensions(data) for data in images]).T
        given = {"seed": 0, "epoch": np.zeros_like(index), "index": index, "draws": CROP_DRAWS}
        drawn = [uniform(purpose=CROP + 16 * view, **given) for view in range(len(views.specs))]
        made = [(boxes(c, height, width, d), flips(c, d)) for c, d in zip(views.specs, drawn, strict=True)]
        cuts, turned = (np.stack(part, axis=1) for part in zip(*made, strict=True))
        for data, box, flip in zip(images, cuts, turned, strict=True):
            crops(data, box, sizes, filters, flip.tolist())

    read, decode, whole = (
        _milliseconds(work)
        for work in (lambda: reader.read(index), lambda: [decode_scaled(x, 8)[0].size for x in images], cut)
    )
    return {"read": read, "decode": decode, "crop": whole - decode}


def _milliseconds(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return 1000 * min(spent) / IMAGES
