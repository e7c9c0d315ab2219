"""The shipped sweeps of videos, recordings and several kinds of data, whole, on small sets: trials, table, report."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from selfsup.pipelines.data import bundled, scenes, sounds
from selfsup.pipelines.data.scenes import impacts, motions

pytestmark = pytest.mark.slow
NUMBER = {"train": 48, "val": 16}
CONTROLS = "motions", "shuffled", "still", "impacts", "mismatched", "silent", "scenes", "miscaptioned"


@pytest.mark.parametrize(
    ("name", "sets", "arms", "columns"),
    [
        ("video_masking", ("motions", "shuffled"), 9, {"knn/top1", "attentive/top1", "shuffled/top1"}),
        ("audio_masking", ("sounds",), 10, {"knn/top1", "linear/top1"}),
        ("modalities", ("scenes",), 4, {"knn/top1", "depth/rmse", "segment_knn/miou"}),
        ("controls", CONTROLS, 8, {"knn/top1", "linear/top1", "heard/top1", "zero_shot/top1"}),
    ],
)
def test_a_sweep_ends_with_all_arms_and_columns(
    name: str, sets: tuple[str, ...], arms: int, columns: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for own in (scenes, motions, impacts):
        monkeypatch.setattr(own, "NUMBER", NUMBER)
    monkeypatch.setattr(sounds, "NUMBER", {split: number // 12 + 1 for split, number in NUMBER.items()})
    for own_set in sets:
        bundled.build(own_set, tmp_path / "home")
    changes = ["seeds=1", "train.duration={steps: 4}", "train.batch=16", "train.log_every=2", "optim.warmup=null"]
    command = [str(Path(sys.executable).parent / "selfsup"), "sweep", name]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    done = subprocess.run(
        [*command, *(part for change in changes for part in ("-s", change))],
        env=kept | {"SELFSUP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [table] = (tmp_path / "home" / "reports").glob("*/results.csv")
    rows = pd.read_csv(table)
    assert set(rows.status) == {"done"}
    trained = rows[rows.metric.str.startswith("pretrain/")]
    assert trained.groupby(["study", "arm"]).ngroups == arms
    assert {f"eval/{column}" for column in columns} <= set(rows.metric)
