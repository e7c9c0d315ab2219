"""The pictures stage: reconstructions of fixed images under fixed masks, by an objective that predicts pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from selfsup import modality, tensors
from selfsup.masks import IndexMask
from selfsup.method import Batch, Method
from selfsup.parts.patch import unpatchify
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.data.collate import collate
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import Load
from selfsup.pipelines.stages.worker import build
from selfsup.spec import Run
from selfsup.stage import Stage
from selfsup.views import Views
from selfsup.whole import whole

IMAGES, TILE, GAP = 8, 128, 4  # pictures in a row; pixels of each at least; pixels between them
SEED = 0  # of the masks: the same ones for every run, so that runs can be compared


def pictures(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `reconstructions.png` to the stage's folder: three rows, masked, predicted, original."""
    assert planned.pretrain is not None
    run, manifest = planned.run, planned.val or planned.train
    method = build(run, planned.info, torch.device("cpu"))
    tensors.fill(method, planned.pretrain.folder / "method.safetensors")
    batch = fixed_batch(run, manifest, method, planned.stats)
    with whole(stage.folder / "reconstructions.png") as part:
        grid(method.eval(), batch, planned.stats).save(part, format="png")
    return {"images": float(len(batch.sample))}


def fixed_batch(run: Run, manifest: Manifest, method: Method, stats: Any) -> Batch:
    """Return samples evenly spaced over the data set, each whole, with a mask that depends on its number only.

    Samples that cannot be decoded are left out. stats: by which samples of training are normalized.
    """
    index = np.linspace(0, manifest.num_samples - 1, IMAGES).astype(np.int64)
    view = modality.whole_of(run.input, run.backbone, 1.0)
    loaded = Load(manifest, manifest, view)({"id": index})
    box = np.zeros((len(loaded["id"]), 3 * len(view.lengths) + 1), np.float32)
    numbers = {"index": loaded["id"], "epoch": np.zeros_like(loaded["id"]), "label": loaded["label"]}
    columns = {"view0": loaded["sample"], "box0": box} | numbers
    views = Views((replace(view, mask=method.views(run.hyper).specs[0].mask),))
    patch = method.encoder(run.modality).patch
    return collate(columns, views, seed=SEED, step=0, patch=patch, stats={view.modality: stats}, device="cpu")


@torch.inference_mode()
def grid(method: Method, batch: Batch, stats: Any) -> Image.Image:
    """Return three rows of tiles: masked patches gray; predicted ones among visible ones; the images."""
    [view], painted = batch.views, method.reconstruct(batch)
    kind, patch = modality.load(view.modality), method.encoder(view.modality).patch
    tokens, mask = view.value, view.mask
    assert isinstance(tokens, Tokens)
    assert isinstance(mask, IndexMask)
    assert patch is not None
    assert painted is not None, "only a method that predicts what it masks has a pictures stage"
    removed = mask.removed[..., None]
    rows = [tokens.value.masked_fill(removed, 0.0), torch.where(removed, painted, tokens.value), tokens.value]
    return _tiles([kind.picture(unpatchify(row, grid=tokens.grid, patch=patch), stats) for row in rows])


def _tiles(rows: list[np.ndarray]) -> Image.Image:
    """(n, H, W, 3) of each row -> one image of all tiles; wide ones in columns instead."""
    if rows[0].shape[2] > 2 * rows[0].shape[1]:
        rows = list(np.stack(rows, axis=1))
    scale = -(-TILE // max(rows[0].shape[1:3]))
    height, width = (side * scale + GAP for side in rows[0].shape[1:3])
    sheet = Image.new("RGB", (len(rows[0]) * width + GAP, len(rows) * height + GAP), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            big = Image.fromarray(tile.repeat(scale, axis=0).repeat(scale, axis=1))
            sheet.paste(big, (GAP + x * width, GAP + y * height))
    return sheet
