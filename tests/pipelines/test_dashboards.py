"""What those who watch a cluster are shown of a run: its name, and its numbers as Prometheus labels them."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import yaml
from tiny import BACKBONE

from selfsup.pipelines.cluster import ray_context
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import gauges
from selfsup.spec import read
from selfsup.sweeps.recorder import Recorder
from selfsup.track import Tracker


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    spec = {"name": "tiny", "method": "simclr", "seeds": [7], "backbone": BACKBONE, "baselines": False}
    spec |= {
        "data": {"train": "bundled://digits/train", "val": "bundled://digits/val"},
        "train": {"duration": {"steps": 1}},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    [planned] = plan(read(tmp_path / "spec.yaml"), tmp_path / "home")
    return planned


def test_a_run_is_named_by_study_arm_seed_and_id(run: PlannedRun) -> None:
    assert run.title == f"simclr, seed 7, {run.id}"
    placed = replace(run, study="mae", arm="mask_ratio=0.5, name=a/b")
    assert placed.title == f"mae, mask_ratio=0.5, name=a_b, seed 7, {run.id}"
    assert placed == run, "its name is no part of what it is"
    assert len(replace(run, arm="x" * 500).title.encode()) < 200, "it is the name of a folder, too"


def test_a_recorder_says_where_a_run_stands(run: PlannedRun) -> None:
    tags = {run.id: {"selfsup.study": "mae", "selfsup.arm": "default"}}
    placed = Recorder(Tracker("sqlite:////nowhere/mlflow.db"), tags).placed(run)
    assert (placed.study, placed.arm) == ("mae", "default")
    assert Recorder(Tracker("sqlite:////nowhere/mlflow.db")).placed(run).title == run.title


def test_gauges_carry_the_labels_of_a_run_and_leave_other_numbers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, float, dict[str, str]]] = []

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert description
            self.name, self.keys = name, tag_keys

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert tuple(tags) == self.keys
            shown.append((self.name, value, tags))

    monkeypatch.setattr(gauges, "Gauge", Gauge)
    labels = {"run": "a", "study": "b", "seed": "0"}
    gauges.Gauges(labels).set({"loss": 2, "rankme": 3.0, "input_wait": 0.25})
    assert shown == [("selfsup_loss", 2.0, labels), ("selfsup_input_wait", 0.25, labels)]


def test_gauges_without_a_ray_do_nothing() -> None:
    assert not ray.is_initialized()
    gauges.Gauges({"run": "a"}).set({"loss": 1.0})


def test_a_cluster_is_asked_for_the_state_of_train_and_keeps_what_a_job_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[dict[str, str]] = []
    monkeypatch.setattr(ray_context, "check_reachable", lambda _: None)
    monkeypatch.setattr(ray_context, "check_shared_folder", lambda _: None)
    monkeypatch.setattr(ray_context, "watchdog", lambda **_: nullcontext())
    monkeypatch.setattr(ray_context, "_init", lambda _, runtime_env: joined.append(runtime_env["env_vars"]))
    for name in (*ray_context.ENVIRONMENT, *ray_context.TRACKING):
        monkeypatch.setenv(name, "")  # so that the end of the test removes what is set here
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "60")  # of the job: Ray refuses a second value
    with ray_context.ray_context():
        pass
    [variables] = joined
    assert variables["RAY_TRAIN_ENABLE_STATE_TRACKING"] == "1"
    assert "RAY_TRAIN_COLLECTIVE_TIMEOUT_S" not in variables
