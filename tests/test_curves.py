"""Evaluations during training: when they are due, that each is made once, and that training knows nothing of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plans import TINY, Home, weights

from selfsup.errors import DataError, SpecError
from selfsup.feature_choice import OWN
from selfsup.metrics_log import records
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages import curves, evaluate
from selfsup.pipelines.stages.encoder_source import Encode
from selfsup.pipelines.stages.worker import snapshot
from selfsup.sealed import sealed
from selfsup.sweeps.recorder import Recorder, _logs

STEPS = {"steps": 4}  # of 8 samples, of which an epoch has 16


@pytest.mark.parametrize(
    ("every", "due"),
    [({"steps": 1}, [1, 2, 3]), ({"epochs": 1}, [2]), ({"samples": 17}, [3]), ({"steps": 4}, []), (None, [])],
)
def test_due_steps_are_a_function_of_the_spec_and_the_last_is_the_run_s_own(
    home: Home, every: dict[str, int] | None, due: list[int]
) -> None:
    assert [*home.run(evals__every=every, train__duration=STEPS).due] == due


def test_ids_and_keys_are_those_without_it(home: Home) -> None:
    for plain, often in zip(home.plan(), home.plan(evals__every={"steps": 1}), strict=True):
        assert (plain.id, [stage.key for stage in plain.stages]) == (often.id, [stage.key for stage in often.stages])
        assert not plain.due
        assert bool(often.due) == bool(often.pretrain)  # baselines do not train
    assert home.run(evals={"every": {"steps": 1}}).due == range(0)  # nothing is evaluated


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ({"use": "knn"}, "every.use: unknown key .every is a word of the program; choose another name"),
        ({}, "every: give exactly one of steps, epochs, samples, not none"),
        (5, "every: expected {steps, epochs, samples} | null, not 5"),
    ],
)
def test_no_evaluation_is_called_so(home: Home, every: Any, expected: str) -> None:
    with pytest.raises(SpecError, match=expected.replace("{", r"\{").replace("|", r"\|")):
        home.run(evals__every=every)


@pytest.fixture
def run(home: Home) -> PlannedRun:
    planned = home.run(evals__every={"steps": 1})
    assert planned.pretrain
    planned.pretrain.claim()
    return planned


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put numbers in place of tasks on Ray; -> what was embedded and scored, in order."""
    made: list[str] = []

    def score(planned: PlannedRun, evaluation: Any, folder: Path, *_: Any, **__: Any) -> Any:
        weights = (folder / "weights").read_text()
        made.append(f"{evaluation.name} {weights}")
        if (evaluation.name, weights) == ("linear", "2"):
            raise DataError("it diverged")
        return {"top1": float(weights)}, planned.id

    def embed(_: PlannedRun, __: str, path: Path, folder: Path) -> None:
        (folder / "weights").write_text(weights := path.read_text())
        made.append(f"embed {weights}")

    for name, stub in {
        "scored": score,
        "_embed": embed,
        "_free_gpus": lambda: 0,
        "_free_cpus": lambda _: 1,
        "POLL": 0.01,
    }.items():
        monkeypatch.setattr(curves, name, stub)
    return made


def leave(run: PlannedRun, *steps: int) -> None:
    assert run.pretrain
    for step in steps:
        path = snapshot(run.pretrain.folder, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(step))


def curve(run: PlannedRun, name: str) -> dict[int, float]:
    return {record.step: record.values["top1"] for record in records(run.probes[name].spool)}


def test_each_encoder_is_embedded_once_in_order_whatever_fails_and_is_gone(run: PlannedRun, calls: list[str]) -> None:
    assert run.pretrain
    with curves.evaluating(run, run.pretrain):
        leave(run, 1, 2)
        leave(run, 3)  # as training ends
    assert calls == [f"{what} {step}" for step in (1, 2, 3) for what in ("embed", "knn", "linear")]
    assert curve(run, "knn") == {1: 1.0, 2: 2.0, 3: 3.0}
    assert curve(run, "linear") == {1: 1.0, 3: 3.0}
    assert (run.probes["linear"].folder / curves.BAD).read_text() == "step 2: user error: it diverged\n"
    assert not snapshot(run.pretrain.folder, 1).parents[1].exists()


def test_after_a_kill_what_is_missing_is_made_and_nothing_twice(run: PlannedRun, calls: list[str]) -> None:
    assert run.pretrain
    leave(run, 1)
    curves.evaluate(run, 1, snapshot(run.pretrain.folder, 1))
    with pytest.raises(KeyboardInterrupt), curves.evaluating(run, run.pretrain):
        raise KeyboardInterrupt  # training ends after one that was evaluated, but not removed
    with curves.evaluating(run, run.pretrain):
        leave(run, 1, 2, 4)  # training repeats the first step; the last is not due
    assert calls == ["embed 1", "knn 1", "linear 1", "embed 2", "knn 2", "linear 2"]


def test_what_waits_for_a_training_that_was_stopped_is_removed_unless_it_goes_on(run: PlannedRun) -> None:
    assert run.pretrain
    leave(run, 1, 2)
    with run.pretrain.held():
        curves.discard(run)
        assert snapshot(run.pretrain.folder, 2).exists()
    curves.discard(run)
    assert not snapshot(run.pretrain.folder, 1).parents[1].exists()


def test_the_same_evaluation_under_two_names_is_made_once(home: Home, calls: list[str]) -> None:
    short = {"use": "finetune", "epochs": 2, "batch": 8, "warmup": 0}
    names = {"knn": {"k": 3}, "near": {"use": "knn", "k": 3}, "finetune": short, "tuned": short}
    run = home.run(evals={"every": {"steps": 1}, **names})
    assert run.pretrain
    run.pretrain.claim()
    leave(run, 1)
    curves.evaluate(run, 1, snapshot(run.pretrain.folder, 1))
    assert calls == ["embed 1", "near 1"]
    assert curve(run, "knn") == curve(run, "near") == {1: 1.0}
    curves_of_both = ("eval/knn/", "eval/near/"), ("pretrain/finetune/", "pretrain/tuned/")
    assert [*_logs(run).values()] == [("pretrain/",), *curves_of_both]


def test_of_other_stages_nothing_is_evaluated(run: PlannedRun, calls: list[str]) -> None:
    leave(run, 1)
    with curves.evaluating(run, run.probes["knn"]):
        pass
    assert calls == []


def test_features_are_those_of_the_encoder_left_whatever_the_number_of_tasks(run: PlannedRun, tmp_path: Path) -> None:
    path = Path(weights(tmp_path / "left.safetensors", seed=3))
    source = evaluate.source_of(run, path, OWN)
    load = evaluate.Load(*run.splits("knn"), source.view)
    for name, tasks in (("one", 1), ("several", 4), ("many", 0)):
        (tmp_path / name).mkdir()
        with sealed(tmp_path / name / "features") as part:
            for samples in curves.spans(20, 2, tasks):
                curves.embed(source, load, samples, 2, part)
    table, value = evaluate.read_features(tmp_path / "one")
    for name, files in (("several", 4), ("many", 3)):
        assert len([*(tmp_path / name / "features").glob("*.parquet")]) == files
        other, same = evaluate.read_features(tmp_path / name)
        assert other.equals(table)
        np.testing.assert_array_equal(same, value)
    features = evaluate.features(tmp_path / "one", classes=2)
    columns = load({"id": np.arange(20)})
    whole = Encode(source)(dict(columns))["feature"].combine_chunks().flatten().to_numpy()
    np.testing.assert_allclose(np.concatenate([features.train, features.val]), whole.reshape(20, TINY.width), atol=1e-6)
    assert [*features.train_label, *features.val_label] == columns["label"].tolist()


@pytest.mark.parametrize(
    ("own", "free", "room"),
    [((1, 1.0, 1.0), 6, 6), ((1, 1.0, 1.0), 4, 2), ((1, 0.9, 0.1), 0, 1), ((2, 3.5, 1.0), 0, 1), ((1, 1.0, 1.0), 8, 8)],
)
def test_runs_share_what_is_free_as_they_share_what_is_in_use(
    home: Home, monkeypatch: pytest.MonkeyPatch, own: tuple[int, float, float], free: int, room: int
) -> None:
    """With 8 CPUs: alone on 2 it has the other 6; one of two runs on 4 has 2 of the other 4."""
    monkeypatch.setattr(curves.ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(curves.ray, "available_resources", lambda: {"CPU": float(free)} if free else {})
    needs = dict(zip(("workers", "cpus_per_worker", "data_cpus"), own, strict=True))
    assert curves._free_cpus(home.run(resources=needs).run) == room


def test_final_numbers_are_the_last_of_the_curve_in_mlflow(run: PlannedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped: list[str] = []
    numbers: dict[str, int] = {}
    for stage in run.stages:
        stage.claim()
        stage.finish({"top1": 1.0})
    tracker: Any = SimpleNamespace(
        ship=lambda *_, prefixes: shipped.extend(prefixes),
        metrics=lambda _, values, step, **__: numbers.update(dict.fromkeys(values, step)),
        artifact=lambda *_: None,
        model=lambda *_, **__: None,
        finish=lambda *_: None,
    )
    monkeypatch.setattr(Recorder, "_open", lambda *_: "run")
    Recorder(tracker).publish(run)
    assert shipped == ["pretrain/", "eval/knn/", "eval/linear/"]
    assert numbers["eval/knn/top1"] == numbers["eval/linear/top1"] == run.steps == 4
    assert numbers["pretrain/top1"] == 0
