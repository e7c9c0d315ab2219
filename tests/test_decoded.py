"""Maps that an objective's own decoders paint of images: their scores, what plans refuse, and how images are seen."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from plans import PLACE, Home
from sklearn.metrics import jaccard_score

from selfsup import tensors
from selfsup.errors import SpecError
from selfsup.evals.depth_decoded import DepthDecoded
from selfsup.evals.segment_decoded import SegmentDecoded
from selfsup.evaluator import Features
from selfsup.parts.patch import patchify
from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, pack_annotated, png
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.stages import encoding
from selfsup.pipelines.stages.evaluate import Load, embed, read_features
from selfsup.views import Center

NONE: Any = np.empty((0, 64, 1), np.float32), np.empty(0, np.int64)
HYPER = {"classes": 4, "class_dim": 4, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def scores(evaluator: Any, painted: np.ndarray, maps: np.ndarray, classes: int = 0) -> dict[str, float]:
    """painted, maps: (M, 8, 8)"""
    value, label = painted.reshape(len(painted), 64, 1).astype(np.float32), np.full(len(painted), -1)
    return dict(evaluator.run(Features(*NONE, value, label, classes, maps[:0], maps), seed=0))


@pytest.mark.parametrize("disparity", [False, True])
def test_depth_is_scored_at_the_scale_and_shift_of_numpys_line(disparity: bool) -> None:
    draw = np.random.default_rng(0)
    true = draw.uniform(1, 9, (3, 8, 8)).astype(np.float32)
    true[0, :2] = 0  # unknown
    wanted = 1 / np.where(true > 0, true, np.inf) if disparity else true
    painted = (5 * wanted + draw.normal(0, 1, true.shape) * wanted.std() - 3).astype(np.float32)
    expected = []
    for own, other, depth in zip(painted, wanted, true, strict=True):
        known = depth > 0
        line = np.polyval(np.polyfit(own[known], other[known], 1), own[known])
        guess = 1 / np.maximum(line, 0.1) if disparity else line
        error, ratio = guess - depth[known], guess / depth[known]
        near = np.maximum(ratio, 1 / ratio) < 1.25
        correlation = np.corrcoef(own[known], other[known])[0, 1]
        expected.append([(error**2).mean() ** 0.5, (abs(error) / depth[known]).mean(), 100 * near.mean(), correlation])
    ours = scores(DepthDecoded(DepthDecoded.Hyper(disparity=disparity)), painted, true)
    assert [*ours.values()] == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-4)


def test_what_says_nothing_of_depth_is_no_better_than_its_mean() -> None:
    true = np.random.default_rng(0).uniform(1, 9, (2, 8, 8)).astype(np.float32)
    flat = np.mean([depth.std() for depth in true])
    for painted in (np.ones_like(true), -true):
        ours = scores(DepthDecoded(DepthDecoded.Hyper()), painted, true)
        assert ours["rmse"] == pytest.approx(flat, rel=1e-5)
        assert ours["correlation"] == pytest.approx(0.0 if painted[0, 0, 0] == 1 else -1.0, abs=1e-5)


def test_segments_are_scored_as_by_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    true, painted = draw.integers(-1, 3, (4, 8, 8)), draw.integers(0, 5, (4, 8, 8))
    ours, known = scores(SegmentDecoded(SegmentDecoded.Hyper()), painted, true, 3), true >= 0
    assert ours["miou"] == pytest.approx(100 * jaccard_score(true[known], painted[known], average="macro"))
    assert ours["pixels"] == pytest.approx(100 * (true == painted)[known].mean())


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of 16 images with maps of four classes and depth."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("maps")
    samples = (
        AnnotatedSample(
            str(number),
            {
                "jpg": jpeg(draw.integers(0, 256, (32, 40, 3), dtype=np.uint8), quality=90),
                "seg.png": png(draw.integers(0, 4, (32, 40)).astype(np.uint8)),
                "depth.png": png(millimeters(draw.uniform(1, 9, (32, 40)))),
            },
            number % 2,
        )
        for number in range(16)
    )
    pack_annotated(samples, folder)
    return str(folder)


def sections(maps: str) -> dict[str, Any]:
    both: dict[str, Any] = {"evals__depth_decoded": {}, "evals__segment_decoded": {}}
    return {"data": {"train": maps, "val": maps}, "evals__linear": None, "evals__knn": None, **both}


def test_maps_are_painted_of_the_whole_image_squashed(home: Home, maps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, run = home.plan(method="multimae", hyper=HYPER, **sections(maps))
    here = SimpleNamespace(kind=SimpleNamespace(resources={"CPU": 1}), share=lambda work: [work(0, 1)])
    monkeypatch.setattr(encoding, "slot_for", lambda _: here)
    method = build(run.run, run.size, torch.device("cpu")).eval()
    run.pretrain.folder.mkdir(parents=True)
    tensors.save(method.state_dict(), run.pretrain.folder / METHOD)
    raw = torch.tensor(Load(run.train, run.train, Center(size=32, squashed=True))({"id": np.arange(16)})["sample"])
    mean, std = (torch.tensor(moment).view(3, 1, 1) for moment in (run.stats.mean, run.stats.std))
    view = patchify((raw.permute(0, 3, 1, 2) / 255 - mean) / std, 8)
    for name, map_ in (("depth_decoded", "depth"), ("segment_decoded", "seg")):
        stage = run.embeds[name]
        stage.folder.mkdir(parents=True)
        embed(run, stage)
        with torch.inference_mode():
            expected = method.decoded_map(map_, view)
        made = read_features(stage.folder)[1]
        assert made.shape == (16, 32 * 32, 1)
        np.testing.assert_allclose(made, expected, atol=1e-4)


def test_baselines_have_no_such_evaluation(home: Home, maps: str) -> None:
    pixels, untrained, run = home.plan(method="multimae", hyper=HYPER, **sections(maps) | {"evals__knn": {"k": 3}})
    assert [[*own.evals] for own in (pixels, untrained)] == [["knn"]] * 2
    assert [*run.evals] == ["depth_decoded", "knn", "segment_decoded"]


@pytest.mark.parametrize(
    ("method", "hyper", "name"), [("mae", {}, "depth"), ("multimae", HYPER | {"depth": False}, "depth")]
)
def test_an_objective_that_paints_no_such_map_is_refused(
    home: Home, maps: str, method: str, hyper: dict[str, Any], name: str
) -> None:
    message = PLACE + rf"evals\.{name}_decoded: .*{method} paints none; leave it out, or choose multimae"
    with pytest.raises(SpecError, match=message):
        home.run(method=method, hyper=hyper, **sections(maps))
