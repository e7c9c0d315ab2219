"""The paint stage: images that a small decoder, trained on frozen features, paints from those of validation images.

After Florian Bordes, Randall Balestriero and Pascal Vincent, "High Fidelity Visualization of What Your Self-Supervised
Representation Knows About" (RCDM), TMLR 2022, arXiv 2112.09164: what several samples of one feature have in common is
what the feature knows. Deviations: the decoder is small and trained in minutes, on small images, and its samples are
those of DDIM; shares of variance, which the paper does not have, say how much they have in common.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup import modality
from selfsup.parts.diffusion import drawn, fitted
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import read_features
from selfsup.pipelines.stages.filled import READ_BATCH
from selfsup.pipelines.stages.load import Load
from selfsup.pipelines.stages.pictures import IMAGES, tiles
from selfsup.pipelines.stages.tasks import called, cpus_of, gpus_of_task
from selfsup.pipelines.stages.view_table import chosen
from selfsup.pipelines.stages.visualize import spaced
from selfsup.sections import Paint
from selfsup.stage import Stage
from selfsup.views import ViewSpec
from selfsup.whole import whole

SAMPLES = 4  # of each image, from the same draws of noise for every image and run
SCORED = 64  # validation images that numbers are of; of them IMAGES are shown
SEED = 0  # of that noise


class Pixels(NamedTuple):
    """The images of two splits, as small as they are painted."""

    train: Manifest
    val: Manifest
    view: ViewSpec

    def read(self, ids: NDArray[np.int64]) -> Tensor:
        """(N,) -> (N, C, S, S), in [-1, 1]: of samples that can be decoded, validation after training"""
        load, kind = Load(self.train, self.val, self.view), modality.load(self.view.modality)
        parts = [load({"id": ids[start : start + READ_BATCH]})["sample"] for start in range(0, len(ids), READ_BATCH)]
        raw = torch.from_numpy(np.concatenate(parts))
        return 2 * kind.augment(raw, self.view, torch.empty(len(raw), 0)) - 1


def paint(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `painted.png` to the stage's folder: rows of originals, and of samples; return shares of variance."""
    run, val = planned.run, planned.val
    assert run.paint
    assert val
    kind, knobs = modality.load(run.modality), run.kinds.knobs
    view = kind.whole((run.paint.size, run.paint.size), run.embed.crop, knobs)
    [features] = stage.after
    what = features.folder, Pixels(planned.train, val, view), run.paint, run.seed
    originals, painted = called(paintings, *what, cpus=cpus_of(run), gpus=gpus_of_task())
    shown = spaced(len(originals), IMAGES)
    rows = [originals[shown], *painted[shown].swapaxes(0, 1)]
    seen = [kind.normalize((torch.from_numpy(row) + 1) / 2, view, planned.stats) for row in rows]
    with whole(stage.folder / "painted.png") as part:
        tiles([kind.picture(row, planned.stats) for row in seen]).save(part, format="png")
    return shares(originals, painted) | {"images": float(len(originals))}


def paintings(folder: Path, pixels: Pixels, paint: Paint, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """-> (N, C, S, S), (N, SAMPLES, C, S, S), in [-1, 1]: validation images, and what is painted from their features.

    folder: of the features.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table, features = read_features(folder)
    ids, split = table["id"].to_numpy(), table["split"].to_numpy()
    train, val = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
    train, val = train[chosen(len(train), paint.images)], val[spaced(len(val), SCORED)]
    values, images = (torch.from_numpy(features[train]), pixels.read(ids[train]))
    knobs = {"steps": paint.steps, "width": paint.width, "seed": seed}
    network = fitted(values.to(device), images.to(device), **knobs)
    originals, known = pixels.read(ids[val]), torch.from_numpy(features[val]).to(device)
    draw = torch.Generator().manual_seed(SEED)
    noise = torch.randn(SAMPLES, 1, *originals.shape[1:], generator=draw).expand(-1, len(originals), -1, -1, -1)
    with torch.inference_mode():
        painted = [drawn(lambda image, time: network(image, time, known), one.to(device)).cpu() for one in noise]
    return originals.numpy(), torch.stack(painted, 1).numpy()


def shares(originals: NDArray[np.float32], painted: NDArray[np.float32]) -> dict[str, float]:
    """(N, C, S, S), (N, K, C, S, S) -> percentages of the variance of pixels over images, their means over pixels.

    explained: of the originals', by the paintings' mean over ever more samples; at most 100, and below 0 where the mean
    of all images is nearer. shared: of the paintings', between images; the intraclass correlation of a one-way layout
    (Shrout and Fleiss, Psychological Bulletin 1979). Both are the same where samples are as likely as they should be.
    """
    mean, within = painted.mean(1, dtype=np.float64), painted.var(1, ddof=1, dtype=np.float64).mean()
    error = np.square(mean - originals).mean() - within / painted.shape[1]
    between = mean.var(0, ddof=1).mean() - within / painted.shape[1]
    return {
        "explained": 100 * (1 - error / originals.var(0, ddof=1, dtype=np.float64).mean()),
        "shared": 100 * between / (between + within),
    }
