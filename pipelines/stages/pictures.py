"""The pictures stage: reconstructions of fixed images under fixed draws, by an objective that predicts pixels."""

from collections.abc import Sequence
from dataclasses import replace
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
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import Load
from selfsup.stage import Stage
from selfsup.whole import whole

IMAGES, TILE, GAP = 8, 128, 4  # pictures in a row; pixels of each at least; pixels between them
SEED = 0  # of masks and draws: the same ones for every run, so that runs can be compared


def pictures(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `reconstructions.png` to the stage's folder: three rows: as seen, predicted, original."""
    assert planned.pretrain is not None
    run, manifest = planned.run, planned.val or planned.train
    method = build(run, planned.size, torch.device("cpu"), teacher=planned.taught)
    tensors.fill(method, planned.pretrain.folder / METHOD)
    batch = fixed_batch(planned, manifest, method)
    with whole(stage.folder / "reconstructions.png") as part:
        grid(method.eval(), batch, planned.stats).save(part, format="png")
    return {"images": float(len(batch.sample))}


def fixed_batch(planned: PlannedRun, manifest: Manifest, method: Method) -> Batch:
    """Return samples evenly spaced over the data set, whole in every view; masks and draws depend on numbers only.

    Samples that cannot be decoded are left out; all are normalized as those of training.
    """
    run = planned.run
    index = np.linspace(0, manifest.num_samples - 1, IMAGES).astype(np.int64)
    asked, kinds = input_kinds.views_of(method.views(run.hyper), run.kinds, run.backbone), run.kinds
    knobs = {kinds.name: kinds.knobs, **kinds.beside}
    whole = [modality.load(spec.modality).whole(spec.lengths, 1.0, knobs[spec.modality]) for spec in asked.specs]
    loaded = [Load(manifest, manifest, view)({"id": index}) for view in whole]
    number, label = loaded[0]["id"], loaded[0]["label"]
    columns = {"index": number, "epoch": np.zeros_like(number), "label": label}
    for place, (view, columns_of) in enumerate(zip(whole, loaded, strict=True)):
        values = 3 * len(view.lengths) + 1 + modality.load(view.modality).pose
        box = np.zeros((len(number), values), np.float32)
        columns |= {f"view{place}": columns_of["sample"], f"box{place}": box}
    masked = tuple(replace(view, mask=spec.mask) for view, spec in zip(whole, asked.specs, strict=True))
    views, patch = replace(asked, specs=masked), method.encoder(run.modality).patch
    stats, beside = planned.all_stats, layouts(method, planned.size)
    return collate(columns, views, seed=SEED, step=0, patch=patch, stats=stats, device="cpu", beside=beside)


@torch.inference_mode()
def grid(method: Method, batch: Batch, stats: Any) -> Image.Image:
    """Return three rows of tiles: images as the encoder sees them; predicted, among visible patches; as they are."""
    view, painted = batch.views[0], method.reconstruct(batch)
    kind, patch = modality.load(view.modality), method.encoder(view.modality).patch
    assert painted is not None, "only a method that predicts pixels has a pictures stage"
    original = view.value.value if isinstance(view.value, Tokens) else view.value
    if view.mask is not None and painted.shape == original.shape:
        painted = torch.where(view.mask.removed[..., None], painted, original)

    def whole(row: Tensor) -> Tensor:
        if not isinstance(view.value, Tokens) or row.ndim != original.ndim:
            return row
        assert patch is not None
        return unpatchify(row, grid=view.value.grid, patch=patch)

    rows = [method.seen(batch), painted, original]
    return tiles([kind.picture(whole(row).float(), stats) for row in rows])


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
