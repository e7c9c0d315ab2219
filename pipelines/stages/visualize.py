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
from selfsup.pipelines.stages.encoder_source import EncoderSource
from selfsup.pipelines.stages.evaluate import source_of
from selfsup.pipelines.stages.load import Load
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
    loaded = Load(manifest, manifest, source.view)({"id": spaced(manifest.num_samples, SAMPLES)})
    raw, number = torch.from_numpy(loaded["sample"]), 0
    for name, sheet in sheets(source, raw, loaded["label"], manifest.classes):
        with whole(stage.folder / f"{name}.png") as part:
            sheet.save(part, format="png")
        number += 1
    return {"images": float(len(raw)), "pictures": float(number)}


def spaced(total: int, number: int) -> NDArray[np.int64]:
    """Return at most so many of the numbers below a total, evenly spaced, first and last among them."""
    return np.linspace(0, total - 1, min(number, total)).astype(np.int64)


def sheets(
    source: EncoderSource, raw: torch.Tensor, label: NDArray[np.int64], classes: tuple[str, ...]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield name and picture of each kind that there is: of raw samples neighbors and map.

    raw: (N, *S, C), views as they are loaded.
    """
    kind, view, shown = modality.load(source.view.modality), source.view, torch.from_numpy(spaced(len(raw), IMAGES))

    def pictures(numbers: torch.Tensor) -> NDArray[np.uint8]:
        values = kind.augment(raw[numbers], view, torch.empty(len(numbers), 0))
        return kind.picture(kind.normalize(values, view, source.stats).float(), source.stats)

    embed = source.model()
    features = torch.cat([embed(part).float().cpu() for part in torch.split(raw, BATCH)])
    nearest = neighbors(features, shown)
    yield "neighbors", tiles([pictures(numbers) for numbers in (shown, *nearest.T)])
    if source.method != "pixels":
        yield from _within(source.pretrained().eval(), raw[shown], pictures(shown))
    if sheet := feature_map(features, label, classes):
        yield "map", sheet


def _within(
    model: PretrainedEncoder, raw: torch.Tensor, images: NDArray[np.uint8]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield what an encoder sees within images, where it has patches and attention."""
    patches = model.encoder.spatial(model.view_of(raw)).float()
    if patches.ndim == 4 and (colors := patch_colors(patches)) is not None:
        yield "patches", tiles([images, colors])
    if maps := attention_maps(model, raw):
        yield "attention", tiles([images, *maps])
