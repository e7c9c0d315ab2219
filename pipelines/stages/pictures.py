"""The pictures stage: what an objective that predicts pixels makes of fixed images, under fixed masks."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup import tensors
from selfsup.encoder import TokenEncoder
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
from selfsup.views import Crop, Views
from selfsup.whole import whole

IMAGES, TILE, GAP = 8, 128, 4  # pictures in a row; pixels of each at least; pixels between them
SEED = 0  # of the masks: the same ones for every run, so that runs can be compared


def pictures(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """`reconstructions.png` in the stage's folder: three rows, masked, predicted, original."""
    assert planned.pretrain is not None
    run, manifest = planned.run, planned.val or planned.train
    method = build(run, planned.info, torch.device("cpu"))
    tensors.fill(method, planned.pretrain.folder / "method.safetensors")
    batch = fixed_batch(run, manifest, method)
    with whole(stage.folder / "reconstructions.png") as part:
        grid(method.eval(), batch, manifest).save(part, format="png")
    return {"images": float(len(batch.sample))}


def fixed_batch(run: Run, manifest: Manifest, method: Method) -> Batch:
    """Images evenly spaced over the data set, each whole, with the mask that belongs to its number.

    One that cannot be decoded is left out.
    """
    index = np.linspace(0, manifest.num_samples - 1, IMAGES).astype(np.int64)
    loaded = Load(manifest, manifest, size=run.backbone.image_size, share=1.0)({"id": index})
    numbers = {"index": loaded["id"], "epoch": np.zeros_like(loaded["id"]), "label": loaded["label"]}
    columns = {"view0": loaded["image"], "box0": np.zeros((len(loaded["id"]), 7), np.float32)} | numbers
    mask = method.views(run.hyper).crops[0].mask
    views = Views((Crop(size=run.backbone.image_size, mask=mask),))
    trunk = method.encoder("image")
    assert isinstance(trunk, TokenEncoder)
    normal = {"mean": manifest.mean, "std": manifest.std}
    return collate(columns, views, seed=SEED, step=0, patch=trunk.patch, **normal, device="cpu")


@torch.inference_mode()
def grid(method: Method, batch: Batch, manifest: Manifest) -> Image.Image:
    """Three rows of tiles; what is masked is grey, what is predicted stands among the visible patches."""
    [view], painted, trunk = batch.views, method.reconstruct(batch), method.encoder("image")
    assert isinstance(trunk, TokenEncoder)
    tokens, mask = view.value, view.mask
    assert isinstance(tokens, Tokens)
    assert isinstance(mask, IndexMask)
    assert painted is not None, "only a method that predicts pixels has a pictures stage"
    removed = mask.removed[..., None]
    rows = [tokens.value.masked_fill(removed, 0.0), torch.where(removed, painted, tokens.value), tokens.value]
    return _tiles([_pixels(unpatchify(row, grid=trunk.grid, patch=trunk.patch), manifest) for row in rows])


def _pixels(images: Tensor, manifest: Manifest) -> np.ndarray:
    """normalised (B, 3, H, W) -> uint8 (B, H, W, 3)"""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (manifest.mean, manifest.std))
    return ((images * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _tiles(rows: list[np.ndarray]) -> Image.Image:
    scale = -(-TILE // rows[0].shape[1])
    side = rows[0].shape[1] * scale + GAP
    sheet = Image.new("RGB", (IMAGES * side + GAP, len(rows) * side + GAP), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            big = Image.fromarray(tile.repeat(scale, axis=0).repeat(scale, axis=1))
            sheet.paste(big, (GAP + x * side, GAP + y * side))
    return sheet
