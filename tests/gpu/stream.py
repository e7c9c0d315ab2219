"""The wait for input of a step that the stream feeds: in this process, and through `selfsup run` on Ray and MLflow."""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from gpu import unchecked
from gpu.place import Row, Setup, attempt
from gpu.speed import INFO, Workload, objective, steps_on

from selfsup.batch import Batch
from selfsup.train import read
from selfsup.views import Views

IMAGES, STEPS = 512, 30
SIDES = (500, 375)  # pixels of ImageNet's typical photograph
WORKLOADS = (Workload("mae", "vit_base_patch16_224", 256), Workload("simclr", "vit_small_patch16_224", 256))
NEEDS = ("pyarrow", "simplejpeg", "pydantic"), ("ray", "mlflow")  # of the stream, and of a run beside it


def missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if name in unchecked.present or find_spec(name) is None]


def threads(setup: Setup) -> Iterator[Row]:
    """Yield how long steps wait for batches that threads of this process decode; all CPUs but one."""
    if absent := missing(NEEDS[0]):
        yield {"skipped": f"not installed: {', '.join(absent)}"}
        return
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), 32 if setup.tiny else IMAGES)
        for workload in WORKLOADS[: 1 if setup.tiny else None]:
            titles = {"objective": workload.method, "backbone": workload.backbone}
            yield attempt(titles, partial(_fed, workload, Path(folder), setup))


def write_photographs(folder: Path, number: int) -> None:
    """Write JPEGs of smooth noise as large as photographs, some 100 KB each, and pack them as shards."""
    from PIL import Image

    from selfsup.pipelines.data.pack import pack

    draw = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in range(number):
        coarse = Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize(SIDES, Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=95)
        (folder / "images" / f"{name:05d}.jpg").write_bytes(buffer.getvalue())
    pack(folder / "images", folder / "shards", shard_size=256)


def _fed(workload: Workload, folder: Path, setup: Setup) -> Row:
    method, views = objective(workload, setup)
    images, number = (8, 2) if setup.tiny else (workload.images, STEPS)
    fed = Fed(str(folder / "shards"), views, images)
    steps = steps_on(method, fed.batches(method.backbone.patch, setup.device))
    *_, last = islice(steps, number)
    read(last)
    began, waited = time.perf_counter(), fed.waited
    *_, last = islice(steps, number)
    read(last)
    seconds = time.perf_counter() - began
    rate, share = images * number / seconds, (fed.waited - waited) / seconds
    return {"ok": True, "images_per_second": round(rate, 1), "input_wait": round(share, 4)}


class Fed:
    """The batches of one worker, as BatchLoader makes them without Ray. waited: seconds, for rows of the stream."""

    def __init__(self, shards: str, views: Views, images: int) -> None:
        from selfsup.pipelines.data import manifest
        from selfsup.pipelines.data.order import SampleOrder
        from selfsup.pipelines.data.stream import SampleStream

        data = manifest.load(shards)
        order = SampleOrder(data.num_samples, images, seed=0)
        self._stream, self.waited = SampleStream(data, order, views, INFO.num_steps), 0.0

    def batches(self, patch: int, device: str) -> Iterator[Batch]:
        from selfsup.pipelines.data.collate import ahead, collate
        from selfsup.pipelines.modalities.image import ImageStats

        stats = {"image": ImageStats(channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))}
        for step, columns in enumerate(ahead(self._timed(), device)):
            yield collate(columns, self._stream.views, seed=0, step=step, patch=patch, stats=stats, device=device)

    def _timed(self) -> Iterator[dict[str, Any]]:
        stream, threads = self._stream, max(1, (os.cpu_count() or 2) - 1)
        rows = stream.rows(range(stream.order.lanes), 0, stream.steps, threads=threads, memory=4 * 2**30)
        began = time.perf_counter()
        for row in rows:
            self.waited += time.perf_counter() - began
            del row["bad"]
            yield row
            began = time.perf_counter()


def run(setup: Setup) -> Iterator[Row]:
    """Yield what `selfsup run` logs of a training on Ray, with the stream attached and MLflow written to."""
    if absent := missing(NEEDS[0] + NEEDS[1]):
        yield {"skipped": f"not installed: {', '.join(absent)}"}
        return
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), 32 if setup.tiny else IMAGES)
        yield attempt({"objective": "mae"}, partial(_logged, Path(folder), setup))


def _logged(folder: Path, setup: Setup) -> Row:
    cuda = setup.device == "cuda"
    tiny = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2}
    spec = {
        "name": "gpu",
        "method": "mae",
        "baselines": False,
        "backbone": {"name": "vit_tiny_patch16_224", **tiny} if setup.tiny else {"name": "vit_base_patch16_224"},
        "data": {"train": str(folder / "shards")},
        "train": {"duration": {"steps": STEPS}, "batch": 16 if setup.tiny else 256, "precision": "bf16"},
        "resources": {"gpus_per_worker": float(cuda), "data_cpus": max(1, (os.cpu_count() or 2) - 1)},
    }
    path, home = folder / "gpu.yaml", folder / "home"
    path.write_text(json.dumps(spec))
    command, own = [sys.executable, "-m", "selfsup", "run", str(path)], {"SELFSUP_HOME": str(home)}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]
    [log] = home.glob("**/metrics.jsonl")
    last = json.loads(log.read_text().splitlines()[-1])
    return {"ok": True, "logged": last}
