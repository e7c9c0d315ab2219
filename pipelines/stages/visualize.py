"""The visualize stage: what an encoder makes of fixed samples, the same ones for every run, as pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from selfsup import modality
from selfsup.feature_choice import OWN
from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import Load, source_of
from selfsup.pipelines.stages.pictures import IMAGES, tiles
from selfsup.pipelines.stages.visuals import attention_maps, feature_map, neighbors, patch_colors
from selfsup.pretrained import PretrainedEncoder
from selfsup.stage import Stage
from selfsup.whole import whole

SAMPLES = 512  # among which neighbors are looked for, and that the map shows; of them IMAGES are shown
BATCH = 64


@torch.inference_mode()
def visualize(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `neighbors.png`, `patches.png`, `attention.png`, `map.png`, those that the encoder has, to the folder."""
    manifest, weights = planned.val or planned.train, planned.pretrain.folder / ENCODER if planned.pretrain else None
    source = source_of(planned, weights, OWN)
    model = source.pretrained().eval()
    loaded = Load(manifest, manifest, source.view)({"id": spaced(manifest.num_samples, SAMPLES)})
    raw, number = torch.from_numpy(loaded["sample"]), 0
    for name, sheet in sheets(model, raw, loaded["label"], manifest.classes):
        with whole(stage.folder / f"{name}.png") as part:
            sheet.save(part, format="png")
        number += 1
    return {"images": float(len(raw)), "pictures": float(number)}


def spaced(total: int, number: int) -> NDArray[np.int64]:
    """Return at most so many of the numbers below a total, evenly spaced, first and last among them."""
    return np.linspace(0, total - 1, min(number, total)).astype(np.int64)


def sheets(
    model: PretrainedEncoder, raw: torch.Tensor, label: NDArray[np.int64], classes: tuple[str, ...]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield name and picture of each kind that the encoder has. raw: (N, *S, C), views as they are loaded."""
    kind, shown = modality.load(model.view.modality), torch.from_numpy(spaced(len(raw), IMAGES))

    def pictures(numbers: torch.Tensor) -> NDArray[np.uint8]:
        return kind.picture(model.normalized(raw[numbers]).float(), model.stats)

    features = torch.cat([model.encoder.pooled(model.view_of(part)).float() for part in torch.split(raw, BATCH)])
    nearest = neighbors(features, shown)
    yield "neighbors", tiles([pictures(numbers) for numbers in (shown, *nearest.T)])
    patches = model.encoder.spatial(model.view_of(raw[shown])).float()
    if patches.ndim == 4 and (colors := patch_colors(patches)) is not None:
        yield "patches", tiles([pictures(shown), colors])
    if maps := attention_maps(model, raw[shown]):
        yield "attention", tiles([pictures(shown), *maps])
    if sheet := feature_map(features, label, classes):
        yield "map", sheet
