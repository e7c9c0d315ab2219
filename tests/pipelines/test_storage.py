"""Files anywhere: the same calls on a disk, in an object store, on a web server and in what else fsspec knows."""

import logging
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Web, google_store, object_store, web_server

from selfsup.errors import DataError
from selfsup.pipelines.data import storage, urls

DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store("bucket") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    with google_store("bucket") as endpoint:
        yield endpoint


@pytest.fixture(params=["disk", "file", "s3", "gs", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, endpoint: str, google: str) -> str:
    name = uuid.uuid4().hex
    return {
        "disk": str(tmp_path / name),
        "file": (tmp_path / name).as_uri(),
        "s3": f"s3://bucket/{name}?endpoint_override={endpoint}&scheme=http",
        "gs": f"gs://anonymous@bucket/{name}?endpoint_override={google}&scheme=http",
        "memory": f"memory://{name}",
    }[request.param]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "a.tar").write_bytes(DATA)
    with web_server(tmp_path) as told:
        yield told


@pytest.mark.parametrize("url", ["file://server/data", "file://data"])
def test_a_file_url_names_no_machine(url: str) -> None:
    with pytest.raises(DataError, match="three slashes"):
        storage.list_files(url, suffix=".tar")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRY_DELAYS", (0.01, 0.01, 0.01))
    storage._folder.cache_clear()


def test_what_is_written_is_listed_and_read_and_removed(folder: str) -> None:
    storage.write(folder, "b.tar", DATA)
    storage.write(folder, "a.tar", lambda: (DATA[start : start + 1000] for start in range(0, len(DATA), 1000)))
    storage.write(folder, "notes.txt", b"")
    assert storage.list_files(folder, suffix=".tar") == ["a.tar", "b.tar"]
    for name in ("a.tar", "b.tar"):
        file = storage.open_file(folder, name, remedy="")
        assert file.size == len(DATA)
        assert file.read() == DATA
        assert file.read(1000, 3001) == DATA[1000:3001]
        assert file.read(7, 7) == b""
    assert storage.read(folder, "notes.txt", remedy="") == b""
    storage.write(folder, "a.tar", b"other")
    assert storage.read(folder, "a.tar", remedy="") == b"other"
    storage.remove(folder, "a.tar")
    storage.remove(folder, "a.tar")
    assert storage.list_files(folder, suffix=".tar") == ["b.tar"]


@pytest.mark.parametrize("name", ["with space", "home%20x", "100%", "home#1", "home?x=1", "h\u00f6m\u00e9", "a+b&c"])
@pytest.mark.parametrize("form", ["path", "plain", "quoted"])
def test_a_local_folder_may_be_called_anything(tmp_path: Path, name: str, form: str) -> None:
    """As a path, as a URL with its characters quoted, and as one that was put together from a path."""
    folder = tmp_path / name
    folder.mkdir()
    url = {"path": str(folder), "plain": f"file://{folder}", "quoted": folder.as_uri()}[form]
    storage.write(url, "a.tar", DATA)
    assert (folder / "a.tar").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert urls.absolute(url) == str(folder)
    assert storage.list_files(url, suffix=".tar") == ["a.tar"]
    assert storage.open_file(url, "a.tar", remedy="").url in (str(folder / "a.tar"), f"{url}/a.tar")


def test_a_quoted_name_goes_before_a_plain_one(tmp_path: Path) -> None:
    for name in ("a b", "a%20b"):
        (tmp_path / name).mkdir()
        assert urls.absolute((tmp_path / name).as_uri()) == str(tmp_path / name)


@pytest.mark.parametrize("key", ["a#b", "a b", "a%20b", "a+b", "a=b&c"])
def test_keys_of_objects_are_taken_as_they_are(endpoint: str, key: str) -> None:
    url = f"s3://bucket/{uuid.uuid4().hex}/{key}?endpoint_override={endpoint}&scheme=http"
    storage.write(url, "a.tar", DATA)
    parent = url.replace(f"/{key}?", "?")
    assert storage.list_folder(parent) == ([], [key])
    assert storage.read(url, "a.tar", remedy="") == DATA
    assert f"/{key}/a.tar?" in storage.open_file(url, "a.tar", remedy="").url


def test_a_large_file_is_read_in_parts(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "REQUEST_BYTES", 999)
    storage.write(folder, "a.tar", DATA)
    assert storage.read(folder, "a.tar", remedy="") == DATA


def test_what_is_missing_comes_with_what_to_do(folder: str) -> None:
    with pytest.raises(DataError, match="not a folder that can be listed"):
        storage.list_files(folder, suffix=".tar")
    assert storage.list_files(folder, suffix=".tar", must_exist=False) == []
    with pytest.raises(DataError, match=r"a\.tar.*: missing; look under the bed"):
        storage.read(folder, "a.tar", remedy="look under the bed")


def test_a_file_that_vanishes_while_it_is_open(endpoint: str) -> None:
    folder = f"s3://bucket/gone?endpoint_override={endpoint}&scheme=http"
    storage.write(folder, "a.tar", DATA)
    file = storage.open_file(folder, "a.tar", remedy="")
    storage.remove(folder, "a.tar")
    with pytest.raises(DataError, match=r"s3://bucket/gone/a\.tar\?endpoint.*: missing"):
        file.read(0, 10)


def test_the_endpoint_may_come_from_the_environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    storage._folder.cache_clear()
    storage.write("s3://bucket/plain", "a", DATA)
    assert storage.read(f"s3://bucket/plain?endpoint_override={endpoint}&scheme=http", "a", remedy="") == DATA


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://me:secret@bucket/set", r"^s3://bucket/set: .* keys and tokens out of it, .* AWS_ACCESS_KEY_ID"),
        ("https://host/set?sig=secret", r"^https://host/set\?sig=\*\*\*: .* tokens out of it"),
        ("s3://bucket/set?endpoint=here", "endpoint: unknown option; the options are endpoint_override, scheme"),
        ("nothing://known/here", "not a path or URL that can be read"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        storage.list_files(url, suffix="")


def test_a_bucket_that_is_not_there_is_told_at_once(endpoint: str) -> None:
    with pytest.raises(DataError, match="NO_SUCH_BUCKET"):
        storage.list_files(f"s3://nobodys/set?endpoint_override={endpoint}&scheme=http", suffix="")


def test_the_web_is_read_by_ranges(web: Web) -> None:
    assert storage.list_files(web.url, suffix=".tar") == ["a.tar"]
    file = storage.open_file(web.url, "a.tar", remedy="")
    assert file.size == len(DATA)
    web.asked.clear()
    assert file.read(100, 300) == DATA[100:300]
    assert web.asked == ["GET /a.tar bytes=100-299"]
    with pytest.raises(DataError, match=r"/b\.tar: missing; ask"):
        storage.open_file(web.url, "b.tar", remedy="ask")
    with pytest.raises(DataError, match=r"cannot be written: .*501"):
        storage.write(web.url, "b.tar", DATA)


def test_a_server_that_ignores_ranges_is_refused(web: Web) -> None:
    web.ranges = False
    file = storage.open_file(web.url, "a.tar", remedy="")
    assert file.read() == DATA
    with pytest.raises(DataError, match=r"got 10240 bytes for the range 100 to 300: .*server ignores ranges"):
        file.read(100, 300)


@pytest.mark.usefixtures("brief")
def test_what_may_pass_is_asked_for_again(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    file = storage.open_file(web.url, "a.tar", remedy="")
    web.asked.clear()
    web.fail = [503, 429, 500]
    with caplog.at_level(logging.WARNING):
        assert file.read(0, 10) == DATA[:10]
    assert len(web.asked) == 4
    assert [record.message.count("a.tar") > 0 for record in caplog.records if "retrying" in record.message] == [
        True
    ] * 3
    web.fail = [503] * 4
    with pytest.raises(DataError, match=r"a\.tar: cannot be read: .*503"):
        file.read(0, 10)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("status", [403, 404])
def test_what_will_not_pass_is_asked_for_once(web: Web, status: int) -> None:
    file = storage.open_file(web.url, "a.tar", remedy="")
    web.asked.clear()
    web.fail = [status]
    with pytest.raises(DataError, match=r"a\.tar: (missing|cannot be read)"):
        file.read(0, 10)
    assert len(web.asked) == 1


@pytest.mark.usefixtures("brief")
def test_a_web_server_that_falls_silent_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "READ_TIMEOUT", 0.1)
    file = storage.open_file(web.url, "a.tar", remedy="")
    web.sleep, start = 0.6, time.monotonic()
    with pytest.raises(DataError, match=r"a\.tar: cannot be read"):
        file.read(0, 10)
    assert time.monotonic() - start < 4 * 0.5
    web.sleep = 0.0


@pytest.mark.usefixtures("brief")
def test_a_google_store_that_is_not_there_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(storage, "RETRY_DELAYS", ())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"gs://anonymous@bucket/x?endpoint_override=127.0.0.1:{free.getsockname()[1]}&scheme=http"
        with pytest.raises(DataError, match="Retry policy exhausted"):
            storage.read(url, "a", remedy="")


@pytest.mark.usefixtures("brief")
def test_an_object_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(storage, "RETRY_DELAYS", (0.01,))
    with socket.create_server(("127.0.0.1", 0), backlog=10) as deaf:
        url, start = f"s3://bucket/x?endpoint_override=127.0.0.1:{deaf.getsockname()[1]}&scheme=http", time.monotonic()
        with pytest.raises(DataError, match="Timeout was reached"):
            storage.read(url, "a", remedy="")
    assert 1.9 < time.monotonic() - start < 10  # twice
