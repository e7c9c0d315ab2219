"""An objective, an evaluation and an augmentation in files of the user's own, run by Ray's workers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from tiny import BACKBONE

import selfsup.methods.simclr
from selfsup.errors import SpecError
from selfsup.metrics_log import tail
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.evaluate import _probe, embed, features, probe
from selfsup.pipelines.stages.pretrain import pretrain
from selfsup.spec import read

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.slow]
OWN_VIEW = '''

class Own(Crop):
    """A view that only this file knows, so every process that receives one must find the file."""
'''
OWN_EVALUATION = """
import numpy as np
from selfsup import Evaluator, Knobs, Metric

class Spread(Evaluator):
    target = None
    metrics = {"spread": Metric(unit="", better="min")}
    Hyper = type("Hyper", (Knobs,), {})

    def __init__(self, hyper):
        pass

    def run(self, features, *, seed, device="cpu"):
        yield "spread", float(np.var(features.val, axis=0).mean())
"""
OWN_AUGMENTATION = """
from selfsup import Augmentation

class Blank(Augmentation):
    def num_draws(self, channels):
        return 0

    def apply(self, images, draws):
        return images * 0
"""


@pytest.fixture
def planned(tmp_path: Path, make: Callable[..., Manifest]) -> PlannedRun:
    make(tmp_path, number=16)
    text = Path(selfsup.methods.simclr.__file__).read_text()
    text = text.replace("class SimCLR", "class Mine").replace("import Views\n", f"import Crop, Views\n{OWN_VIEW}")
    text = text.replace("        return Views((crop", "        crop = Own(**vars(crop))\n        return Views((crop")
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "spread.py").write_text(OWN_EVALUATION)
    (tmp_path / "blank.py").write_text(OWN_AUGMENTATION)
    spec = {
        "name": "own",
        "method": "./mine.py",
        "data": {"train": str(tmp_path / "shards"), "val": str(tmp_path / "shards")},
        "evals": {"own": {"use": "spread.py"}},
        "backbone": BACKBONE,
        "baselines": False,
        "train": {"duration": {"steps": 2}, "batch": 8, "log_every": 1},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(spec))
    [run] = plan(read(tmp_path / "own.yaml"), tmp_path / "home")
    return run


def trained(run: PlannedRun) -> dict[str, float]:
    assert run.pretrain
    run.pretrain.claim()
    return pretrain(run, run.pretrain)


def test_workers_train_it(planned: PlannedRun) -> None:
    trained(planned)
    assert planned.pretrain
    last = tail(planned.pretrain.folder / "metrics.jsonl")
    assert last
    assert last.step == 2
    assert last.values["chance"] == pytest.approx(2.7081, abs=1e-4)  # log(15): one of the others of 16 views
    assert (planned.pretrain.folder / "encoder.safetensors").exists()


@pytest.mark.usefixtures("planned")
def test_workers_change_their_views_by_the_augmentation(tmp_path: Path) -> None:
    """Black images all have the same features."""
    text = (tmp_path / "own.yaml").read_text()
    (tmp_path / "own.yaml").write_text(f"{text}augment: {{use: blank.py}}\n")
    [run] = plan(read(tmp_path / "own.yaml"), tmp_path / "home")
    trained(run)
    assert run.pretrain
    last = tail(run.pretrain.folder / "metrics.jsonl")
    assert last
    assert last.values["feature_std"] == pytest.approx(0, abs=1e-5)  # without it 0.02 and more


def test_a_task_makes_its_evaluation_unless_the_file_has_changed_since(planned: PlannedRun) -> None:
    trained(planned)
    [stage] = planned.embeds.values()
    stage.claim()
    embed(planned, stage)
    value = features(stage.folder, 2, labelled=False).val
    scores = probe(planned, planned.probes["own"])
    assert scores == {"spread": pytest.approx(value.var(axis=0).mean()), "images": 16}
    evaluation, old = planned.evals["own"], {"code": "of an earlier text"}
    with pytest.raises(SpecError, match=r"spread\.py has changed since the run was planned"):
        _probe(evaluation.use, evaluation.hyper, partial(features, stage.folder, 2), 1, 0, old, 256)


def test_workers_refuse_a_file_that_has_changed_since_the_plan(planned: PlannedRun, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(file.read_text().replace("temperature=self.temperature)", "temperature=2 * self.temperature)"))
    with pytest.raises(SpecError, match=r"mine\.py has changed since the run was planned; run the same command again"):
        trained(planned)
