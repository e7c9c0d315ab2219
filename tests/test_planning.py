"""What makes a stage's key and a run's id, and what does not."""

import gc
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from plans import Home, weights

from selfsup.errors import SpecError
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import unique
from selfsup.pipelines.stages.runner import perform
from selfsup.stage import Stage


def keys(run: PlannedRun) -> dict[str, str]:
    return {stage.kind: stage.key for stage in run.stages}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"optim__lr": 1.5e-4, "hyper__mask_ratio": 0.75, "optim__name": "adamw"}, id="defaults written out"
        ),
        pytest.param({"resources__workers": 2, "resources__data_cpus": 0.5}, id="what it runs on"),
        pytest.param(
            {"train__log_every": 1, "train__checkpoint_every": 1, "stream__bad_share": 1.0}, id="how it is kept"
        ),
        pytest.param({"embed__batch": 1}, id="images at a time"),
        pytest.param({"name": "another", "baselines": False}, id="what it goes by"),
    ],
)
def test_what_changes_no_result_changes_no_key_and_no_id(home: Home, changes: dict[str, Any]) -> None:
    before, after = home.run(), home.run(**changes)
    assert keys(after) == keys(before)
    assert after.id == before.id


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_many_arms_hold_the_open_files_and_rows_of_one(home: Home, sets: Path) -> None:
    def files_and_rows() -> tuple[int, int]:
        paths = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        rows = {id(manifest.rows) for run in arms for manifest in (run.train, run.val) if manifest}
        return sum(path.is_relative_to(sets) for path in paths), len(rows)

    arms = [*home.plan(baselines=False)]
    gc.collect()
    before = files_and_rows()
    for number in range(1, 20):
        arms += home.plan(baselines=False, hyper__mask_ratio=number / 100)
    gc.collect()
    assert (len(arms), before[1]) == (20, 2)
    assert files_and_rows() == before


def test_data_indexed_anew_is_planned_anew(home: Home, sets: Path) -> None:
    folder = shutil.copytree(sets / "train" / "shards", home.folder / "changing")
    before = home.run(data__train=str(folder))
    shutil.copytree(sets / "other" / "shards", folder, dirs_exist_ok=True)
    after = home.run(data__train=str(folder))
    assert after.id == home.run(data__train="other").id != before.id
    assert home.run(data__train=str(folder)).train is after.train is not before.train


def test_data_may_move(home: Home, sets: Path, tmp_path: Path) -> None:
    moved = [shutil.copytree(sets / split / "shards", tmp_path / "moved" / split) for split in ("train", "val")]
    after = home.run(data__train=str(moved[0]), data__val=str(moved[1]))
    assert keys(after) == keys(home.run())


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"evals__knn__k": 4}, {"knn"}),
        ({"embed__crop": 1.0}, {"embed", "knn", "linear"}),
        ({"data__val": "other"}, {"pictures", "embed", "knn", "linear"}),
        ({"data__train": "other"}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"seeds": [1]}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"hyper__mask_ratio": 0.5}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"optim__lr": 1e-3}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"train__duration__steps": 5}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"backbone__depth": 1}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"stream__mix": 8}, {"pretrain", "pictures", "embed", "knn", "linear"}),
    ],
)
def test_a_change_reaches_the_stages_that_depend_on_it_and_no_other(
    home: Home, changes: dict[str, Any], kinds: set[str]
) -> None:
    before = home.run()
    after = home.run(**changes)
    assert {kind for kind, key in keys(after).items() if keys(before)[kind] != key} == kinds
    assert after.id != before.id


def test_one_changed_byte_of_an_image_is_other_data(home: Home, sets: Path, tmp_path: Path) -> None:
    shutil.copytree(sets / "train" / "images", tmp_path / "images")
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a" / "0.png")
    pack(tmp_path / "images", tmp_path / "changed")
    assert keys(home.run(data__train=str(tmp_path / "changed")))["pretrain"] != keys(home.run())["pretrain"]


def test_stages_come_in_the_order_of_their_dependence(home: Home) -> None:
    pixels, untrained, mae = home.plan()
    assert [stage.kind for stage in mae.stages] == ["pretrain", "pictures", "embed", "knn", "linear"]
    assert [stage.kind for stage in untrained.stages] == ["embed", "knn", "linear"]
    assert [stage.kind for stage in pixels.stages] == ["embed", "knn", "linear"]
    assert [stage.kind for stage in home.run(method="simclr").stages] == ["pretrain", "embed", "knn", "linear"]
    [alone] = home.plan(data={"train": "train"}, evals={})
    assert [stage.kind for stage in alone.stages] == ["pretrain", "pictures"]


def test_the_untrained_encoder_differs_from_seed_to_seed_and_pixels_do_not(home: Home) -> None:
    runs = {(each.run.method, each.run.seed): keys(each)["embed"] for each in home.plan(seeds=2)}
    assert runs["untrained", 0] != runs["untrained", 1]
    assert runs["pixels", 0] == runs["pixels", 1]


def test_baselines_that_specs_share_count_once(home: Home) -> None:
    both = [*home.plan(seeds=2), *home.plan(seeds=2, method="simclr")]
    assert len(both) == 12
    labels = [each.label for each in unique(both)]
    assert {label: labels.count(label) for label in labels} == {
        "raw pixels": 2,
        "random encoder": 2,
        "mae": 2,
        "simclr": 2,
    }


def test_given_weights_are_known_by_what_is_in_their_file(home: Home, tmp_path: Path) -> None:
    path, moved = tmp_path / "w.safetensors", tmp_path / "moved.safetensors"
    weights(path, seed=0)
    before = [keys(each) for each in home.plan(backbone__weights=str(path))]
    shutil.copyfile(path, moved)
    assert [keys(each) for each in home.plan(backbone__weights=str(moved))] == before
    weights(path, seed=1)
    after = [keys(each) for each in home.plan(backbone__weights=str(path))]
    assert before[0] == after[0], "raw pixels know no weights"
    assert all(before[each][kind] != key for each in (1, 2) for kind, key in after[each].items())


def test_weights_that_change_after_the_plan_are_noticed(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    run = home.run(backbone__weights=weights(path, seed=0))
    assert run.id == replace(run).id
    weights(path, seed=1)
    with pytest.raises(SpecError, match=r"backbone\.weights: .*w\.safetensors has changed"):
        perform(run)


def test_a_default_that_changed_is_noticed(tmp_path: Path) -> None:
    before = Stage("pretrain", {"seed": 0}, {"seed": 0, "optim": {"lr": 0.1, "betas": (0.9, 0.95)}}, tmp_path)
    after = Stage("pretrain", {"seed": 0}, {"seed": 0, "optim": {"lr": 0.2, "betas": (0.9, 0.95)}}, tmp_path)
    assert before.key == after.key
    before.claim()
    before.claim()  # going on with the same work
    with pytest.raises(SpecError) as caught:
        after.claim()
    assert str(before.folder) in str(caught.value)
    assert "optim.lr: 0.2 here, 0.1 there" in str(caught.value)
    assert "betas" not in str(caught.value)


def test_a_stage_is_done_when_it_has_a_result(tmp_path: Path) -> None:
    stage = Stage("knn", {"seed": 0}, {"seed": 0}, tmp_path)
    stage.claim()
    assert not stage.done
    stage.finish({"top1": 50.0})
    assert stage.done
    assert stage.result() == {"top1": 50.0}
    assert stage.space == "eval/knn"


def test_threads_make_the_batches_but_on_a_cluster_unless_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (home.run().feeder, home.run(stream__feeder="ray").feeder) == ("threads", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    assert (home.run().feeder, home.run(stream__feeder="threads").feeder) == ("ray", "threads")


@pytest.mark.parametrize("method", ["pixels", "untrained"])
def test_a_baseline_that_no_evaluation_reads_is_refused_at_its_method(home: Home, method: str) -> None:
    with pytest.raises(SpecError, match=rf"method: {method} trains nothing, and there is no evaluation"):
        home.plan(method=method, evals={})
