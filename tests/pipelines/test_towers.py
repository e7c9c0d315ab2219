"""Evaluations of two towers while they train: of the whole objective, as training leaves it."""

from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import BACKBONE

from selfsup.metrics_log import records
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import curves, evaluate
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytestmark = pytest.mark.usefixtures("cluster")
SPEC: dict[str, Any] = {
    "name": "towers",
    "method": "clip",
    "backbone": BACKBONE,
    "input": {"text": {"length": 8, "width": 32, "depth": 1, "heads": 2}},
    "hyper": {"dim": 16},
    "baselines": False,
    "optim": {"lr": 0.01, "lr_rule": "none"},
    "train": {"duration": {"steps": 6}, "batch": 8},
    "stream": {"lanes": 4, "chunk": 2, "mix": 2},
    "evals": {"every": {"steps": 4}, "zero_shot": {"templates": ["n {}"]}, "caption_retrieval": {}, "knn": {"k": 3}},
}


def sample(number: int) -> AnnotatedSample:
    """Return an image as bright as its caption says."""
    image = jpeg(np.full((32, 32, 3), 20 * number, np.uint8), quality=95)
    return AnnotatedSample(f"{number:03d}", {"jpg": image, "txt": b"n %d" % number}, number % 2)


def planned(home: Path, data: Manifest) -> PlannedRun:
    home.mkdir()
    (home / "spec.yaml").write_text(yaml.safe_dump(SPEC | {"data": {"train": data.root, "val": data.root}}))
    [run] = plan(read(home / "spec.yaml"), home)
    return run


def test_a_curve_is_of_the_towers_that_training_had_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as once training is over, of weights that are those after step 4."""
    data, made = pack_annotated(map(sample, range(12)), tmp_path / "data", classes=["even", "odd"]), curves.evaluate

    def evaluated(run: PlannedRun, step: int, weights: Path) -> None:
        copytree(weights.parent, tmp_path / f"{step}")
        made(run, step, weights)

    monkeypatch.setattr(curves, "evaluate", evaluated)
    perform(run := planned(tmp_path / "home", data))
    other = planned(tmp_path / "other", data)
    assert other.pretrain
    copytree(tmp_path / "4", other.pretrain.folder)
    for stage in other.embeds.values():
        stage.claim()
        evaluate.embed(other, stage)
    for name, stage in other.probes.items():
        final = evaluate.probe(other, stage)
        [record] = records(run.probes[name].spool)
        assert record.step == 4
        assert record.values == {key: pytest.approx(value) for key, value in final.items() if key != "images"}
