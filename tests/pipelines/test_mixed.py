"""Samples of several kinds in one data set, none of which is of all: their index, their rows, and what runs do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tiny import BACKBONE

from selfsup.errors import SpecError
from selfsup.metrics_log import tail
from selfsup.pipelines import cost
from selfsup.pipelines.data import bundled, shards
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.scenes import mixed
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.lacking import masked
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytest.importorskip("av", reason="pip install 'selfsup[video]'")
NUMBER = 24
INPUT = {"video": {"frames": 4, "rate": 4.0, "tubelet": 2}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed, "NUMBER", {"train": NUMBER, "val": 3})
        return load(bundled.resolve("bundled://mixed/train", tmp_path_factory.mktemp("home")))


def planned(
    train: Manifest, folder: Path, method: str = "omnivore", policy: str = "mask", **sections: Any
) -> PlannedRun:
    spec = {"name": "m", "method": method, "data": {"train": train.root}, "backbone": BACKBONE, "baselines": False}
    spec |= {
        "train": {"duration": {"steps": 6}, "batch": 8, "log_every": 2},
        **({"input": INPUT} if method == "omnivore" else {}),
    }
    spec |= {"stream": {"lacking": policy, "lanes": 4, "chunk": 2, "mix": 2}} | sections
    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    [run] = plan(read(folder / "spec.yaml"), folder / "home")
    return run


def rows(run: PlannedRun, lanes: list[int], first: int = 0) -> list[dict[str, NDArray]]:
    views = Task(run.run, run.learned, run.order, run.size, Path(), {}, run.stats).views
    stream = SampleStream(run.learned, run.order, views, 6, masked(run.run, run.train))
    return list(stream.rows(lanes, first, 6, threads=2, memory=2**24))


def test_most_samples_give_a_data_set_its_field(data: Manifest) -> None:
    assert (list(data.fields), data.annotations, {*data.beside}) == (["image"], (), {"depth", "video"})
    assert data.lacking == {"image": NUMBER // 3, "depth": 2 * NUMBER // 3, "video": 2 * NUMBER // 3}
    assert (data.num_labelled, shards.check(data.root)) == (NUMBER, [])
    images, clips = (SampleReader(data, name).read(np.arange(NUMBER)) for name in ("image", "video"))
    assert [bool(sample.data) for sample in images] == [number % 3 < 2 for number in range(NUMBER)]
    assert [bool(sample.data) for sample in clips] == [number % 3 == 2 for number in range(NUMBER)]
    names = [data.classes[sample.label or 0] for sample in images]
    assert {*names[::3]} <= {*mixed.COLORS}
    assert {*names[1::3]} <= {*mixed.DISTANCES}
    assert names[2::3] == [[*mixed.motions.ORDERS][number % 4] for number in range(2, NUMBER, 3)]


def test_what_a_sample_lacks_is_empty_on_any_worker_from_any_start(data: Manifest, tmp_path: Path) -> None:
    run = planned(data, tmp_path)
    whole, later = (rows(run, [0, 1, 2, 3], first) for first in (0, 4))
    halves = [rows(run, lanes) for lanes in ([0, 2], [1, 3])]
    for step, row in enumerate(whole):
        assert not len(row["bad"])
        for number, kinds in enumerate(((0, 1), (1,), (2,))):
            has = np.isin(row["index"] % 3, kinds)
            assert ((row[f"box{number}"] != 0).any(1) == has).all()
            view = np.nan_to_num(row[f"view{number}"]).reshape(8, -1)
            assert (view.any(1) == has).all()
        for name in row.keys() - {"bad"}:
            parts = [half[step][name].reshape(2, 2, *row[name].shape[1:]) for half in halves]
            np.testing.assert_array_equal(np.stack(parts, 1).reshape(row[name].shape), row[name])
            if step >= 4:
                np.testing.assert_array_equal(later[step - 4][name], row[name])


def test_a_plan_says_what_is_lacking(data: Manifest, tmp_path: Path) -> None:
    parts = "8 of 24 samples have no image, 16 of 24 samples have no depth, 16 of 24 samples have no video"
    assert ("lacking", f"{parts}: learned from without it") in cost.facts(planned(data, tmp_path))
    images = planned(data, tmp_path, "supervised", "skip")
    assert ("lacking", "8 of 24 samples have no image: left out") in cost.facts(images)
    assert images.learned.num_samples == 16


@pytest.mark.parametrize(
    ("method", "sections", "message"),
    [
        ("supervised", {"stream": {}}, "8 of 24 samples of .* have no image, which supervised reads: .*=skip leaves"),
        ("supervised", {"stream": {"lacking": "mask"}}, "and its loss is of samples that have it: stream.lacking=skip"),
        ("omnivore", {"stream": {}}, "no image, which omnivore reads: .* stream.lacking=mask learns from what they"),
        ("omnivore", {"evals": {"knn": {}}}, "have no image, which evaluations read; give them data of their own"),
    ],
)
def test_what_cannot_be_learned_or_scored(
    data: Manifest, tmp_path: Path, method: str, sections: dict[str, Any], message: str
) -> None:
    own = sections | ({"data": {"train": data.root, "val": data.root}} if "evals" in sections else {})
    with pytest.raises(SpecError, match=message):
        planned(data, tmp_path, method, **own)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_workers_learn_from_all_kinds(data: Manifest, tmp_path: Path) -> None:
    run = planned(data, tmp_path, resources={"workers": 2, "cpus_per_worker": 0.5})
    perform(run)
    summary = json.loads((run.pretrain.folder / "summary.json").read_text())
    assert (summary["lacking_samples"], summary["bad_samples"]) == (NUMBER, 0)
    last = tail(run.pretrain.spool)
    assert last.step == 6
    kinds = {"image_accuracy", "depth_accuracy", "video_accuracy"}
    assert all(np.isfinite(last.values[name]) for name in (*kinds, "loss", "rankme", "feature_std"))
