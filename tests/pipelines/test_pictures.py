"""Pictures of objectives of any number of views, with masks and without, on encoders of tokens and of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from outsiders import planned, spec_beside
from PIL import Image
from tiny import BACKBONE

from selfsup.method import Batch, Method
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.pictures import fixed_batch, grid
from selfsup.pipelines.stages.worker import build

OBJECTIVE = """
from selfsup import Knobs, Method, Views, knob
from selfsup.masks import BlockMask
from selfsup.method import Out
from selfsup.views import Crop

class Painter(Method):
    paper, family = "0000.00000", "reconstruction"

    class Hyper(Knobs):
        masked: bool = knob(True, "whether there is a mask")

    @classmethod
    def views(cls, hyper):
        return Views((Crop(mask=BlockMask(0.3, 0.5) if hyper.masked else None), Crop(size=16, of=0)), draws=2)

    def __init__(self, hyper, encoders, info):
        super().__init__(hyper, encoders, info)

    def forward(self, batch):
        return Out(self.backbone.pooled(batch.views[0].value).mean())

    def reconstruct(self, batch):
        value = batch.views[0].value
        pixels = value.value if hasattr(value, "value") else value
        return pixels + 1 + batch.draws[:, 0].view(-1, *[1] * (pixels.ndim - 1))
"""
SIDE, TILE = 32, 132  # pixels of an image, and of its tile with the gap


def painter(folder: Path, shards: str, kind: str) -> tuple[PlannedRun, Method, Batch]:
    """Return a run of OBJECTIVE on a kind of encoder, the objective and its fixed batch."""
    cnn = {"hyper": {"masked": False}, "backbone": {"name": "resnet18", "image_size": SIDE, "stem": "small"}}
    sections = {"method": "./painter.py"} | (cnn if kind == "cnn" else {})
    run = planned(spec_beside(folder / "painter.py", OBJECTIVE, shards, **sections))
    method = build(run.run, run.info, torch.device("cpu"))
    return run, method, fixed_batch(run, run.train, method)


def rows(sheet: Image.Image, number: int = 3) -> list[np.ndarray]:
    """Return the pixels of the rows: eight tiles, enlarged four times."""
    pixels = np.asarray(sheet)
    assert pixels.shape == (number * TILE + 4, 8 * TILE + 4, 3)
    return [
        np.stack([pixels[y : y + 128 : 4, x : x + 128 : 4] for x in range(4, 8 * TILE, TILE)])
        for y in range(4, number * TILE, TILE)
    ]


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_batch_has_every_view_and_draws_of_the_number_alone(tmp_path: Path, shards: str, kind: str) -> None:
    run, method, batch = painter(tmp_path, shards, kind)
    again = fixed_batch(run, run.train, method)
    assert batch.draws.shape == (8, 2)
    assert batch.draws.equal(again.draws)
    assert len(batch.draws.unique()) == 16
    values = [view.value if isinstance(view.value, torch.Tensor) else view.value.value for view in batch.views]
    assert [value[0].numel() for value in values] == [3 * SIDE**2, 3 * 16**2]


def test_tokens_of_a_mask_are_gray_and_predicted_among_the_others(tmp_path: Path, shards: str) -> None:
    run, method, batch = painter(tmp_path, shards, "vit")
    seen, predicted, original = rows(grid(method, batch, run.all_stats))
    where = batch.views[0].mask.removed.view(8, 4, 4).numpy().repeat(8, axis=1).repeat(8, axis=2)
    gray = np.round(255 * np.array(run.stats.mean))
    assert np.abs(seen[where] - gray).max() <= 1
    np.testing.assert_array_equal(seen[~where], original[~where])
    np.testing.assert_array_equal(predicted[~where], original[~where])
    assert (predicted[where] >= original[where]).all()
    assert (predicted[where] > original[where]).mean() > 0.9


def test_images_without_a_mask_are_predicted_whole(tmp_path: Path, shards: str) -> None:
    run, method, batch = painter(tmp_path, shards, "cnn")
    method.seen = lambda batch: -batch.views[0].value
    seen, predicted, original = rows(grid(method, batch, run.all_stats))
    white = (original == 255) | (predicted == 255)
    assert (white | (predicted > original)).all()
    assert not np.array_equal(seen, original)


def test_each_kind_of_data_has_its_rows(tmp_path: Path) -> None:
    """Images wider than high, halves of which are of two classes; one sample has no depth, and no classes.

    Colors are PASCAL VOC's: 1 is red at half, 4 blue, 7 gray; white where nothing is known, or seen.
    """
    left = np.arange(64) < 32
    samples = []
    for number in range(8):
        image = np.where(left[..., None], 10 * number, 250).astype(np.uint8) * np.ones((32, 64, 3), np.uint8)
        depth, seg = (
            np.where(left, 1000, 3000).astype(np.uint16),
            np.where(left, [1, 4][number % 2], 7).astype(np.uint8),
        )
        beside = {
            "depth.png": png(depth * np.ones((32, 1), np.uint16)),
            "seg.png": png(seg * np.ones((32, 1), np.uint8)),
        }
        samples.append(AnnotatedSample(f"{number}", {"png": png(image), **(beside if number != 5 else {})}))
    data = pack_annotated(samples, tmp_path / "data").root
    hyper = {"classes": 9, "class_dim": 4, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "visible": 0.9}
    sections = {"method": "multimae", "hyper": hyper, "stream": {"lacking": "mask"}, "backbone": BACKBONE}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data, **sections))
    assert [stage.kind for stage in run.drawings] == ["pictures"]
    method = build(run.run, run.info, torch.device("cpu"))
    shown = rows(grid(method, fixed_batch(run, run.shown, method), run.all_stats), 9)
    seen, _, depths = shown[3:6]
    assert (shown[2][3, :, :16] == 30).all()
    assert (depths[0, :, :16] == depths[0, 0, 0]).all()
    assert depths[0, 0, 0].sum() < depths[0, 0, 31].sum()  # near is dark
    assert not np.array_equal(seen, depths)
    seen, painted, classes = shown[6:]
    for number in range(8):
        expected = [[128, 0, 0], [0, 0, 128]][number % 2] if number != 5 else [255] * 3
        assert (classes[number, :, :16] == expected).all()
        assert (classes[number, :, 16:] == (128 if number != 5 else 255)).all()
    is_white = (seen == 255).all(-1)
    np.testing.assert_array_equal(seen[~is_white], classes[~is_white])
    np.testing.assert_array_equal(painted[~is_white], classes[~is_white])
    assert 0 < is_white[:5].mean() < 1
