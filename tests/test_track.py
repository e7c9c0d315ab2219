"""Against real stores: SQLite files in a temporary folder, and an MLflow server that is killed and started again."""

import contextlib
import itertools
import json
import math
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from servers import free_ports

from selfsup.errors import TrackError
from selfsup.metrics_log import MetricsLog
from selfsup.mlflow_store import ui_command
from selfsup.shipper import Shipper
from selfsup.track import Tracker


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tracker(home: Path, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(home)


def start(tracker: Tracker, id: str, **more: object) -> str:  # noqa: A002
    given = {"name": id, "experiment": "test", "params": {}, "tags": {}} | more
    return tracker.open(id=id, **given)  # type: ignore[arg-type]


def history(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    found = tracker._client.get_metric_history(run_id, name)
    return sorted((metric.step, metric.value) for metric in found)


def fill(path: Path, steps: range, **values: float) -> None:
    spool = MetricsLog(path)
    for step in steps:
        spool.append(step, {"loss": 1 / step} | values)
    spool.commit(steps[-1])


def test_a_run_is_found_again_by_its_id(tracker: Tracker) -> None:
    given = {"params": {"lr": 0.1}, "tags": {"git": "a1"}, "datasets": [("photos/train", "0" * 32, "pretrain")]}
    first = start(tracker, "once", **given)
    tracker.finish(first, "FAILED")
    given["params"] = {"lr": 0.1, "workers": 2}
    assert start(tracker, "once", **given) == first
    run = tracker._client.get_run(first)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"lr": "0.1", "workers": "2"}
    assert run.data.tags["git"] == "a1"
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("photos/train", "0" * 32)
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "pretrain")]


def test_a_parameter_is_written_once(tracker: Tracker) -> None:
    start(tracker, "params", params={"workers": 1})
    run = start(tracker, "params", params={"workers": 2})
    assert tracker._client.get_run(run).data.params == {"workers": "1"}


def test_more_parameters_than_one_batch_takes(tracker: Tracker) -> None:
    params = {f"p{number}": number for number in range(250)}
    run = start(tracker, "many", params=params)
    assert tracker._client.get_run(run).data.params == {name: str(value) for name, value in params.items()}


def test_sending_twice_is_sending_once(tracker: Tracker, tmp_path: Path) -> None:
    run, path = start(tracker, "twice"), tmp_path / "a.jsonl"
    fill(path, range(1, 1201), grad=2.0)  # 2400 numbers: three batches
    assert tracker.ship(run, path, prefixes=("pretrain/",)) == 2400
    assert tracker.ship(run, path, prefixes=("pretrain/",)) == 0
    (tmp_path / "a.jsonl.sent").unlink()
    assert tracker.ship(run, path, prefixes=("pretrain/",)) == 2400
    assert history(tracker, run, "pretrain/loss") == [(step, 1 / step) for step in range(1, 1201)]


def test_a_log_is_sent_under_each_of_its_names(tracker: Tracker, tmp_path: Path) -> None:
    run, path = start(tracker, "named twice"), tmp_path / "a.jsonl"
    fill(path, range(1, 4))
    assert tracker.ship(run, path, prefixes=("eval/knn/", "eval/near/")) == 6
    curves = [history(tracker, run, f"eval/{name}/loss") for name in ("knn", "near")]
    assert curves == 2 * [[(1, 1), (2, 1 / 2), (3, 1 / 3)]]


def test_another_run_gets_the_whole_spool(tracker: Tracker, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, range(1, 4))
    assert tracker.ship(start(tracker, "one"), path) == 3
    assert tracker.ship(start(tracker, "other"), path) == 3


def test_a_restored_run_does_not_zigzag(tracker: Tracker, tmp_path: Path) -> None:
    run, path = start(tracker, "restored"), tmp_path / "a.jsonl"
    fill(path, range(1, 4))
    MetricsLog(path).append(4, {"loss": 99.0})
    tracker.ship(run, path)
    fill(path, range(3, 7))  # goes on from the checkpoint of step 3
    tracker.ship(run, path)
    assert history(tracker, run, "loss") == [(step, 1 / step) for step in range(1, 7)]


def test_values_that_are_not_finite_are_counted(tracker: Tracker, tmp_path: Path) -> None:
    run, path = start(tracker, "nonfinite"), tmp_path / "a.jsonl"
    spool = MetricsLog(path)
    spool.append(1, {"a": math.inf, "b": math.nan, "c": 1.0})
    spool.append(2, {"a": 3.0})
    spool.commit(2)
    tracker.ship(run, path)
    assert history(tracker, run, "a") == [(2, 3.0)]
    assert history(tracker, run, "c") == [(1, 1.0)]
    assert history(tracker, run, "nonfinite") == [(1, 2.0)]


def test_a_reason_is_kept_until_the_run_goes_on(tracker: Tracker) -> None:
    run = start(tracker, "reason")
    tracker.finish(run, "FAILED", "out of memory")
    assert tracker._client.get_run(run).data.tags["selfsup.reason"] == "out of memory"
    start(tracker, "reason")
    assert "selfsup.reason" not in tracker._client.get_run(run).data.tags


def test_a_run_is_shown_under_its_parent(tracker: Tracker) -> None:
    parents = start(tracker, "parent"), start(tracker, "another parent")
    for parent in parents:  # the second time it moves
        child = start(tracker, "child", parent=parent)
        found = tracker.runs("test", f"tags.mlflow.parentRunId = '{parent}'")
        assert [run.info.run_id for run in found] == [child]
    assert tracker.runs("test", f"tags.mlflow.parentRunId = '{parents[0]}'") == []


def test_what_was_recorded_again_counts_once_in_a_history(tracker: Tracker) -> None:
    run = start(tracker, "history")
    for step, time_, value in ((1, 1000, 0.5), (2, 2000, 0.4), (3, 3000, 9.0), (3, 5000, 0.3), (2, 4000, 0.45)):
        tracker.metrics(run, {"loss": value}, step=step, time=time_)
    assert tracker.history(run, "loss") == [(1, 0.5), (2, 0.45), (3, 0.3)]


def test_an_encoder_is_noted_once_without_files(tracker: Tracker, home: Path) -> None:
    run = start(tracker, "encoder")
    notes = [tracker.model(run, name="encoder", path="/home/encoder", digest="d1") for _ in range(2)]
    for _ in range(2):
        tracker.metrics(run, {"eval/knn/top1": 70.0}, time=1000, model=notes[0])
    assert notes[0] == notes[1] != tracker.model(run, name="encoder", path="/home/encoder", digest="d2")
    model = tracker._client.get_logged_model(notes[0])
    assert (model.status, model.source_run_id, model.tags["selfsup.path"]) == ("READY", run, "/home/encoder")
    assert [(metric.key, metric.value) for metric in model.metrics] == [("eval/knn/top1", 70.0)]
    assert len(tracker._client.get_run(run).outputs.model_outputs) == 2
    assert not list(home.glob(f"artifacts/**/{notes[0]}/**/*.*"))


def test_a_report_is_replaced_by_the_next(tracker: Tracker) -> None:
    run = start(tracker, "report")
    for content in (b"first", b"second"):
        tracker.content(run, "report.html", content, "report")
    assert tracker.fetch(run, "report/report.html") == b"second"
    assert tracker.fetch(run, "report/other.html") is None


def test_artifacts_lie_under_the_home(tracker: Tracker, home: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_bytes(b"picture")
    run = start(tracker, "picture")
    tracker.artifact(run, tmp_path / "grid.png", "pictures")
    assert (home / "artifacts" / run / "artifacts" / "pictures" / "grid.png").read_bytes() == b"picture"


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MLflow's own modules, as they are imported
def test_a_deleted_experiment_is_told(tracker: Tracker) -> None:
    start(tracker, "gone", experiment="gone")
    tracker._client.delete_experiment(tracker._client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(TrackError, match=r"experiment 'gone' was deleted there; .* restore") as told:
        start(tracker, "gone", experiment="gone")
    variable, python, *argv = shlex.split(str(told.value).split("`")[1])
    assert python == sys.executable
    name, _, uri = variable.partition("=")
    from mlflow.cli import cli

    done = CliRunner().invoke(cli, argv[2:], env={name: uri})
    assert done.exit_code == 0, done.output
    start(tracker, "gone", experiment="gone")


OPEN = """
import sys
from selfsup.track import Tracker
tracker = Tracker(sys.argv[1]).connect()
tracker.open(id=sys.argv[2], name="", experiment="fresh", params={}, tags={})
"""


def test_processes_that_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, uri, id]) for id in ("a", "b")]  # noqa: A001
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(Tracker(uri).connect().runs("fresh")) == 2


SEND = """
import pathlib, sys
from selfsup.metrics_log import MetricsLog
from selfsup.track import Tracker
tracker, number, path = Tracker(sys.argv[1]).connect(), int(sys.argv[2]), pathlib.Path(sys.argv[3])
run = tracker.open(id=f"sender{number}", name="", experiment="senders", params={"number": number}, tags={})
for step in range(1, 101):
    MetricsLog(path, restored=step).append(step, {"loss": 1000.0 * number + step})
    if step % 10 == 0:
        MetricsLog(path, restored=step).commit(step)
        tracker.ship(run, path)
tracker.finish(run, "FINISHED")
"""


@pytest.mark.slow  # eight processes that import MLflow
def test_eight_processes_that_write_to_one_store_lose_nothing(tracker: Tracker, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SEND, tracker.uri]
    writers = [subprocess.Popen([*argv, str(number), str(tmp_path / f"{number}.jsonl")]) for number in range(8)]
    assert [writer.wait(timeout=180) for writer in writers] == [0] * 8
    runs = {int(run.data.params["number"]): run for run in tracker.runs("senders")}
    assert len(runs) == 8
    for number, run in runs.items():
        assert run.info.status == "FINISHED"
        assert history(tracker, run.info.run_id, "loss") == [(step, 1000.0 * number + step) for step in range(1, 101)]


WRITE = """
import pathlib, sys
from selfsup.metrics_log import MetricsLog
spool = MetricsLog(pathlib.Path(sys.argv[1]))
for step in range(1, 201):
    spool.append(step, {"loss": float(sys.argv[2]) + step})
    if step % 50 == 0:
        spool.commit(step)
"""


def test_four_writing_processes_and_one_that_sends(tracker: Tracker, tmp_path: Path) -> None:
    shipper = Shipper(tracker, every=0.01)
    runs = {number: start(tracker, f"writer{number}") for number in range(4)}
    paths = {number: tmp_path / f"{number}.jsonl" for number in runs}
    for number, run in runs.items():
        shipper.add(run, paths[number])
    shipper.start()
    argv = [sys.executable, "-c", WRITE]
    writers = [subprocess.Popen([*argv, str(path), str(1000 * number)]) for number, path in paths.items()]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    assert shipper.close(timeout=30)
    for number, run in runs.items():
        assert history(tracker, run, "loss") == [(step, 1000.0 * number + step) for step in range(1, 201)]


def test_a_store_that_fails_before_and_after_it_stored(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path, calls = start(tracker, "failing"), tmp_path / "a.jsonl", itertools.count()
    log_batch = tracker._client.log_batch

    def failing(*args: object, **kwargs: object) -> None:
        call = next(calls) % 3
        if call == 0:
            raise OSError("no answer, nothing stored")
        log_batch(*args, **kwargs)  # type: ignore[arg-type]
        if call == 1:
            raise OSError("no answer, all stored")

    monkeypatch.setattr(tracker._client, "log_batch", failing)
    fill(path, range(1, 1001))  # five batches
    shipper = Shipper(tracker, every=0.01)
    shipper.add(run, path)
    shipper.start()
    assert shipper.close(timeout=60)
    assert next(calls) == 15
    assert history(tracker, run, "loss") == [(step, 1 / step) for step in range(1, 1001)]


def test_a_store_of_another_mlflow_is_told_and_copied(tracker: Tracker, home: Path, tmp_path: Path) -> None:
    assert tracker.uri.endswith(f"{home}/mlflow.db")
    store = shutil.copyfile(home / "mlflow.db", tmp_path / "mlflow.db")
    with contextlib.closing(sqlite3.connect(store)) as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'fromthefuture'")
        opened.commit()
    with pytest.raises(TrackError, match=r"schema cannot be migrated .*mlflow.db.backup.*fromthefuture"):
        Tracker(f"sqlite:///{store}").connect()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db.backup")) as opened:
        assert opened.execute("SELECT version_num FROM alembic_version").fetchall() == [("fromthefuture",)]


@contextlib.contextmanager
def serving(home: Path, port: int) -> Iterator[None]:
    argv, env = ui_command(f"sqlite:///{home}/mlflow.db", home, port)
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(argv, env=env, cwd=home, start_new_session=True, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
        return bool(reply.status == 200)
    return False


@pytest.mark.slow  # a server takes 6 to 25 s to start, and this starts two
def test_a_server_killed_and_started_again_loses_and_doubles_nothing(
    tracker: Tracker, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracker.uri.endswith(f"{home}/mlflow.db")
    shutil.copyfile(home / "mlflow.db", tmp_path / "mlflow.db")  # a schema takes seconds to make
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    (port,), path = free_ports(1), tmp_path / "a.jsonl"
    spool = MetricsLog(path)
    with serving(tmp_path, port):
        remote = Tracker(f"http://127.0.0.1:{port}").connect()
        run = start(remote, "killed")
        shipper = Shipper(remote, every=0.05)
        shipper.add(run, path)
        shipper.start()
        for step in range(1, 2001):  # ten batches
            spool.append(step, {"loss": 1 / step})
        spool.commit(2000)
        deadline = time.monotonic() + 30
        while not path.with_name("a.jsonl.sent").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    for step in range(2001, 2101):  # while nobody is there
        spool.append(step, {"loss": 1 / step})
    spool.commit(2100)
    with serving(tmp_path, port):
        assert shipper.close(timeout=60)
        assert history(remote, run, "loss") == [(step, 1 / step) for step in range(1, 2101)]
        stranger = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(stranger)
        job = json.dumps({"job_name": "invoke_scorer", "params": {}}).encode()
        asked = {"Content-Type": "application/json"}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/ajax-api/3.0/jobs/", job, asked))
        assert b"not enabled" in refused.value.read()


def test_closing_without_a_server_says_that_numbers_are_left(tmp_path: Path) -> None:
    shipper = Shipper(Mock(ship=Mock(side_effect=TrackError("away"))), every=0.01)
    shipper.add("run", tmp_path / "a.jsonl")
    shipper.start()
    before = time.monotonic()
    assert not shipper.close(timeout=0.2)
    assert time.monotonic() - before < 5
