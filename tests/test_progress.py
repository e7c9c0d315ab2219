import sys
from pathlib import Path

import pytest

from selfsup import progress
from selfsup.metrics_log import MetricsLog
from selfsup.progress import Remaining, counting, follow, labelling
from selfsup.stage import Stage


@pytest.mark.parametrize(
    ("classes", "labelled", "samples", "text"),
    [
        (2, 16, 16, "2 classes, all labelled"),
        (1000, 12, 1_281_167, "1,000 classes, 12 of 1,281,167 labelled"),
        (1, 3, 4, "1 class, 3 of 4 labelled"),
        (0, 0, 16, "no labels"),
        (2, 0, 16, "no labels"),  # classnames.txt alone
    ],
)
def test_how_much_is_labelled(classes: int, labelled: int, samples: int, text: str) -> None:
    assert labelling(classes, labelled, samples) == text


def test_a_log_gets_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with counting("files") as show:
        show(0, 10)
        show(3, 10)
        show(10, 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("|")[-1].split()[0] for line in lines] == ["3/10", "10/10"]
    assert all(line.isprintable() for line in lines)


def test_what_is_left_goes_by_the_pace_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    remaining = Remaining({"pixels": 1.0, "mae": 99.0, "simclr": 300.0})
    now[0] = 101.0
    assert remaining.after("pixels") == "1 of 3, about 7 min left"  # 399 s
    now[0] = 200.0
    assert remaining.after("mae") == "2 of 3, about 5 min left"
    assert remaining.after("mae") == "2 of 3, about 5 min left"
    now[0] = 20_000.0
    assert remaining.after("simclr") == "3 of 3"
    assert Remaining({"a": 0.0, "b": 0.0}).after("a") == "1 of 2"


def test_a_training_s_line_ends_with_its_latest_evaluations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    stage = Stage("pretrain", {}, {}, tmp_path)
    MetricsLog(stage.spool).append(5, {"loss": 1.5, "samples_per_second": 20.0})
    with follow(stage, "mae", 10, lambda: "knn 45.00"):
        pass
    assert "5/10 steps, loss 1.500, 20 samples/s, knn 45.00 " in capsys.readouterr().err


def test_warnings_of_rays_nodes_reach_a_log_without_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray prints them itself, in yellow whether or not a terminal reads."""
    from ray._private.worker import print_worker_logs

    from selfsup.pipelines.cluster.ray_context import ENVIRONMENT

    line = {"pid": "raylet", "lines": ["WARNING: 8 workers"], "ip": "a", "localhost": "a"}
    monkeypatch.setenv("RAY_COLOR_PREFIX", ENVIRONMENT["RAY_COLOR_PREFIX"])
    print_worker_logs(line, sys.stderr, ignore_prefix=False)
    assert capsys.readouterr().err == "(raylet) WARNING: 8 workers\n"
