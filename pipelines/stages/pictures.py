"""The pictures stage: reconstructions of fixed images under fixed draws, by an objective that predicts pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup import input_kinds, modality, tensors
from selfsup.method import Batch, Method, layouts
from selfsup.parts.patch import unpatchify
from selfsup.parts.tokens import Tokens
from selfsup.pipelines import lacking
from selfsup.pipelines.data import annotation
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.planned import PlannedRun
from selfsup.stage import Stage
from selfsup.whole import whole

IMAGES, TILE, GAP = 8, 128, 4  # pictures in a row; pixels of each at least; pixels between them
MEMORY = 2**28  # bytes, for their samples
SEED = 0  # of masks and draws: the same ones for every run, so that runs can be compared


def pictures(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `reconstructions.png` to the stage's folder: three rows of each kind: as seen, predicted, original."""
    assert planned.pretrain is not None
    run = planned.run
    method = build(run, planned.size, torch.device("cpu"), teacher=planned.taught)
    tensors.fill(method, planned.pretrain.folder / METHOD)
    batch = fixed_batch(planned, planned.shown, method)
    with whole(stage.folder / "reconstructions.png") as part:
        grid(method.eval(), batch, planned.all_stats).save(part, format="png")
    return {"images": float(len(batch.sample))}


@dataclass(frozen=True)
class SpacedOrder(SampleOrder):
    """One step, of samples that are evenly spaced over a data set."""

    def take(self, lane: int, start: int, stop: int) -> tuple[Ints, Ints]:  # noqa: ARG002
        index = np.linspace(0, self.samples - 1, self.batch).astype(np.int64)[None]
        return np.zeros_like(index), index


def fixed_batch(planned: PlannedRun, manifest: Manifest, method: Method) -> Batch:
    """Return samples evenly spaced over the data set, whole in every view; masks and draws depend on numbers only.

    Others take the places of those that cannot be decoded; all are normalized as those of training.
    """
    run, kinds = planned.run, planned.run.kinds
    asked, knobs = input_kinds.views_of(method.views(run.hyper), kinds, run.backbone), {kinds.name: kinds.knobs}
    knobs |= kinds.beside
    whole = tuple(modality.load(spec.modality).whole(spec.lengths, 1.0, knobs[spec.modality]) for spec in asked.specs)
    order = SpacedOrder(samples=manifest.num_samples, batch=IMAGES, seed=SEED, lanes=1, remainder="wrap")
    stream = SampleStream(manifest, order, replace(asked, specs=whole), 1, lacking.masked(run, manifest))
    [columns] = stream.rows([0], 0, 1, threads=1, memory=MEMORY)
    masked = tuple(replace(view, mask=spec.mask) for view, spec in zip(whole, asked.specs, strict=True))
    views, patch = replace(asked, specs=masked), method.encoder(run.modality).patch
    stats, beside = planned.all_stats, layouts(method, planned.size)
    return collate(columns, views, seed=SEED, step=0, patch=patch, stats=stats, device="cpu", beside=beside)


@torch.inference_mode()
def grid(method: Method, batch: Batch, stats: Mapping[str, Any]) -> Image.Image:
    """Return three rows of tiles of each kind of data: as the encoder sees it; predicted; as it is.

    stats: of each modality.
    """
    first = batch.views[0]

    def picture(kind: str, row: Tensor) -> NDArray[np.uint8]:
        if kind in annotation.SUFFIXES and kind not in stats:
            return annotation.colors(row.numpy())
        if isinstance(first.value, Tokens) and row.ndim == first.value.value.ndim:
            patch = method.encoder(first.modality).patch
            assert patch is not None
            row = unpatchify(row, grid=first.value.grid, patch=patch)
        return modality.load(kind).picture(row.float(), stats[kind])

    return tiles([picture(kind, row) for kind, *rows in method.paintings(batch) for row in rows])


def tiles(rows: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """(n, h, w, 3) of each row -> one image of all tiles, as large as those of the first; wide ones in columns."""
    sides = rows[0].shape[1:3]
    scale = -(-TILE // max(sides))
    height, width = (side * scale + GAP for side in sides)
    is_wide = sides[1] > 2 * sides[0]
    across, down = (len(rows), len(rows[0])) if is_wide else (len(rows[0]), len(rows))
    sheet = Image.new("RGB", (across * width + GAP, down * height + GAP), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            column, line = (y, x) if is_wide else (x, y)
            big = Image.fromarray(tile).resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
            sheet.paste(big, (GAP + column * width, GAP + line * height))
    return sheet
