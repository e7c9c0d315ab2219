"""Which MLflow is meant, whether it answers, and where it is looked at."""

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from servers import free_ports

from selfsup.errors import SpecError, TrackError
from selfsup.folders import node_cache_folder
from selfsup.mlflow_store import ENVIRONMENT, default_uri, experiment_page, home, load_mlflow, ui_command
from selfsup.track import Tracker


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "postgresql://localhost/mlflow", "databricks"])
def test_other_stores_are_refused(uri: str) -> None:
    with pytest.raises(TrackError, match="expected sqlite:///PATH, or http"):
        Tracker(uri)


def test_an_unreachable_server_is_told_at_once() -> None:
    (port,) = free_ports(1)
    uri, before = f"http://127.0.0.1:{port}", time.monotonic()
    with pytest.raises(TrackError, match=f"MLflow at {uri}: cannot connect: .*refused"):
        Tracker(uri).connect()
    assert time.monotonic() - before < 10


def test_a_server_that_never_answers_is_told_within_10_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(TrackError, match="timed out"):
            Tracker(f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}").connect()
        assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"these are not the numbers that you are looking for" * 100, "not a database"),
        (lambda data: data[: len(data) // 2], "malformed"),
        (lambda data: data[:100] + bytes(200) + data[300:], "malformed"),
    ],
)
def test_a_damaged_store_is_told_at_once(damage: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as made:
        for number in range(40):
            made.execute(f"CREATE TABLE held_{number} (one TEXT)")
        made.execute("CREATE TABLE metrics (value REAL)")
        made.executemany("INSERT INTO metrics VALUES (?)", [(0.5,)] * 2000)
        made.commit()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrackError, match=rf"mlflow.db: cannot connect: .*{reason}.* move it away: then the same"):
        Tracker(f"sqlite:///{path}").connect()


def test_damage_that_a_later_question_meets_is_told(tmp_path: Path) -> None:
    """SQLAlchemy may put a line of its own before SQLite's."""
    store = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    damage = sqlite3.DatabaseError("(raised by a flush)\n(sqlite3.DatabaseError) database disk image is malformed")
    told = r"cannot ask: database disk image is malformed\. Put a copy"
    with pytest.raises(TrackError, match=told), store._errors("ask"):
        raise damage


@pytest.mark.parametrize("place", ["http://host/home", "s3://bucket/" + 200 * "x", "file:///shared/home"])
def test_a_home_that_is_no_folder_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_HOME", place)
    monkeypatch.setenv("SELFSUP_CACHE", place)
    with pytest.raises(SpecError, match=f"SELFSUP_HOME: {place}: expected a folder"):
        home()
    with pytest.raises(SpecError, match=f"SELFSUP_CACHE: {place}: expected a folder"):
        node_cache_folder()
    assert list(tmp_path.iterdir()) == []


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(tmp_path) == f"sqlite:////{str(tmp_path)[1:]}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert default_uri(tmp_path) == "http://mlflow:5000"


def test_a_home_may_be_called_what_a_url_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "a%41 b?x=1&y#é@c:d"
    tracker = Tracker(default_uri(home)).connect()
    run = tracker.open(id="a-1", name="x", experiment="e", params={}, tags={})
    tracker.content(run, "plan.json", b"{}", "d")
    assert tracker.fetch(run, "d/plan.json") == b"{}"
    assert (home / "mlflow.db").stat().st_size
    assert len(list((home / "artifacts").rglob("plan.json"))) == 1
    assert list(tmp_path.iterdir()) == [home]


def test_the_ui_is_for_this_machine_and_runs_no_jobs(tmp_path: Path) -> None:
    argv, env = ui_command("sqlite:////x/mlflow.db", tmp_path, 5001)
    told = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert (told["--host"], told["--port"], told["--workers"]) == ("127.0.0.1", "5001", "1")
    assert told["--backend-store-uri"] == "sqlite:////x/mlflow.db"
    assert told["--allowed-hosts"] == "127.0.0.1:5001,localhost:5001"
    assert env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["PATH"] == os.environ["PATH"]


def test_a_local_store_is_shown_where_the_ui_serves_it() -> None:
    assert experiment_page("sqlite:////x/mlflow.db", "7", 5001) == "http://127.0.0.1:5001/#/experiments/7"


def test_a_server_has_no_ui_of_ours(tmp_path: Path) -> None:
    with pytest.raises(TrackError, match="open http://mlflow:5000 in a browser"):
        ui_command("http://me:secret@mlflow:5000", tmp_path, 5000)


@pytest.mark.parametrize(("quiet", "lines"), [("", 0), ("false", 1)])
def test_mlflow_prints_no_line_for_a_run_that_ends_on_a_server(
    quiet: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does if nothing is set, which the second case shows."""
    monkeypatch.setenv(
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", quiet or ENVIRONMENT["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"]
    )
    load_mlflow()
    from mlflow import MlflowClient
    from mlflow.store.tracking.rest_store import RestStore

    monkeypatch.setattr(RestStore, "update_run_info", lambda *_, **__: None)
    monkeypatch.setattr(
        RestStore, "get_run", lambda *_, **__: MagicMock(info=MagicMock(run_name="mae", experiment_id="1"))
    )
    MlflowClient("http://127.0.0.1:1").set_terminated("run", "FINISHED")
    assert capsys.readouterr().out.count("View run mae") == lines
