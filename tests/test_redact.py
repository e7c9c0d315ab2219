"""Secrets in URLs: known as such, refused before anything is stored, repeated by no message."""

import base64
import http.server
import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner
from wheels import tiny_wheel

from selfsup import failures
from selfsup.cli import app
from selfsup.errors import DataError, SelfsupError, SpecError, TrackError
from selfsup.mlflow_store import default_uri, move_credentials
from selfsup.pipelines.cluster.runtime_env import Extras
from selfsup.pipelines.cluster.submit import submit
from selfsup.pipelines.data import storage
from selfsup.redact import has_secret, redacted
from selfsup.spec import read
from selfsup.track import Tracker

SECRET = "hunter2/+=x"
CARRIERS = [
    f"s3://AKIA123:{SECRET}@bucket/set",
    "s3://hunter2@bucket/set",
    f"http://me:{SECRET}@host:80/set",
    "https://hunter2@host/set",
    "ftp://me:hun@ter2hunter2@host/set",
    "ray://:hunter2@head:10001",
    "https://host/a?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2",
    "https://host/a?sv=2024&sig=hunter2",
    "https://host/a?b=1&access_token=hunter2#x",
    "s3://bucket/set?secret_key=hunter2&region=eu",
]
FREE = [
    "s3://bucket/set?endpoint_override=localhost:9000&scheme=http&region=eu-west-1&anonymous=true",
    "gs://anonymous@bucket/set?endpoint_override=127.0.0.1:80",
    "hdfs://user@namenode:8020/a@b",
    "abfs://container@account.dfs.core.windows.net/a",
    "http://localhost:5000/a@b?page=2",
    "http://[::1]:5000/a@b",
    "bundled://photos/train",
    "/data/a@b:c/d",
    "file:///a%20b/c",
]


@pytest.mark.parametrize("url", CARRIERS)
def test_a_secret_is_known_and_taken_out_wherever_the_url_stands(url: str) -> None:
    assert has_secret(url)
    for text in (url, f"cannot read '{url}': gone", f"({url})", f"a {url}, and {url}"):
        assert "hunter2" not in redacted(text)
        assert redacted(redacted(text)) == redacted(text)
    assert "bucket" in redacted(url) or "host" in redacted(url) or "head" in redacted(url)


@pytest.mark.parametrize("url", FREE)
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert redacted(f"{url}: missing; see '{url}'") == f"{url}: missing; see '{url}'"
    assert not has_secret(url)


@pytest.mark.parametrize("url", CARRIERS)
def test_no_error_repeats_one(url: str) -> None:
    error = SelfsupError(f"{url}: refused")
    assert "hunter2" not in f"{error} {error!r} {pickle.loads(pickle.dumps(error))!r}"
    assert "hunter2" not in repr(failures.classify(OSError(f"cannot reach {url}")))


@pytest.mark.parametrize("url", CARRIERS)
def test_a_spec_with_one_is_refused_at_its_place(url: str, tmp_path: Path) -> None:
    data = {"train": url, "val": "/data/val"}
    told = {"name": "x", "method": "pixels", "data": data, "train": {"duration": {"steps": 1}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(told))
    for overrides in ((), (f"data.val={url}", "data.train=/data/train")):
        with pytest.raises(SpecError, match=r"data\.(train|val): .*environment") as caught:
            read(tmp_path / "spec.yaml", overrides)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda url: storage.list_files(url, suffix=".tar"),
        lambda url: storage.read(url, "a", remedy="put it back"),
        lambda url: storage.write(url, "a", b""),
        lambda url: storage.remove(url, "a"),
    ],
)
def test_storage_takes_none(call: Callable[[str], object], caplog: pytest.LogCaptureFixture) -> None:
    for url in CARRIERS:
        with pytest.raises(DataError) as caught:
            call(url)
        assert "hunter2" not in str(caught.value)
    assert not caplog.text


@pytest.mark.parametrize("words", [["shards", "index"], ["shards", "check"], ["shards", "pack", "IMAGES"]])
def test_commands_print_none(words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jpg").touch()
    argv = [str(tmp_path) if word == "IMAGES" else word for word in words]
    done = CliRunner().invoke(app, [*argv, CARRIERS[0]])
    assert isinstance(done.exception, DataError)
    assert "hunter2" not in done.output + str(done.exception) + caplog.text


class Server(http.server.ThreadingHTTPServer):
    """One that asks for a name and a password, and answers that all is gone."""

    asked: set[str | None]


class Asking(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.add(self.headers["Authorization"])
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Asking) as found:
        found.asked = set()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_mlflow_gets_name_and_password_by_the_environment_and_nothing_shows_them(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = f"127.0.0.1:{server.server_address[1]}"
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "another")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2%2F@{place}")
    caplog.set_level(logging.DEBUG)
    tracker = Tracker(default_uri(tmp_path))
    assert tracker.uri == os.environ["MLFLOW_TRACKING_URI"] == f"http://{place}"
    with pytest.raises(TrackError) as caught:
        tracker.connect()
    said = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert place in said
    assert "hunter2" not in said
    assert server.asked == {None, "Basic " + base64.b64encode(b"me:hunter2/").decode()}  # None: of the first knock


def test_a_job_is_sent_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def __init__(self, address: str) -> None:
            assert address == "http://head:8265"

        def submit_job(self, **told: object) -> str:
            sent.append(told)
            raise RuntimeError("http://me:hunter2@head:8265 refuses")

    sent: list[object] = []
    told = {"name": "x", "method": "pixels", "data": {"train": "/a"}, "train": {"duration": {"steps": 1}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(told))
    extras = Extras(wheel=tiny_wheel(tmp_path))
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr("selfsup.pipelines.cluster.submit.check_reachable", lambda _: None)
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@mlflow:5000")
    with pytest.raises(SelfsupError, match="refuses") as caught:
        submit("run", [tmp_path / "spec.yaml"], [], address="http://head:8265", name="x", extras=extras)
    assert "'MLFLOW_TRACKING_URI': 'http://mlflow:5000'" in str(sent)
    assert "hunter2" not in str(sent) + str(caught.value)
    assert "MLFLOW_TRACKING_USERNAME and _PASSWORD are not sent" in capsys.readouterr().err


def test_a_name_alone_is_refused_and_a_local_store_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://hunter2@mlflow:5000")
    with pytest.raises(TrackError, match="MLFLOW_TRACKING_USERNAME") as caught:
        move_credentials()
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////a@b:c/mlflow.db")
    move_credentials()
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:////a@b:c/mlflow.db"
