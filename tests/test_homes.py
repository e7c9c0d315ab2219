"""Homes on object storage: what one node publishes another finds, whole or not at all, and a stage is one driver's."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from servers import object_store

from selfsup import claim, homes, mirror, objects
from selfsup.claim import can_create, claimed, is_claimed
from selfsup.errors import SpecError, TrackError
from selfsup.homes import fetch, forget, home_at, mirror_of, publish, pull, shown
from selfsup.mirror import Mirror
from selfsup.mirror_index import inputs, notes
from selfsup.mlflow_store import default_uri
from selfsup.objects import StorageError, open_store
from selfsup.stage import Stage, remove

PLACES = ("s3", "memory")  # through obstore and through fsspec


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store("bucket") as endpoint:
        yield endpoint


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, endpoint: str, tmp_path: Path) -> str:
    options = {"s3": f"s3://bucket{tmp_path}?endpoint_override={endpoint}&scheme=http", "memory": f"memory:/{tmp_path}"}
    return options[request.param]


@pytest.fixture
def nodes(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the homes of two nodes, which share nothing but storage."""
    return node(url, tmp_path / "1", monkeypatch), node(url, tmp_path / "2", monkeypatch)


def node(url: str, cache: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.setenv("SELFSUP_CACHE", str(cache))
    return home_at(url)


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def mirror_at(path: Path) -> Mirror:
    found = mirror_of(path)
    assert found
    return found


def test_a_path_says_what_it_mirrors(nodes: tuple[Path, Path], url: str, tmp_path: Path) -> None:
    assert [mirror_at(home / "stages/a").url for home in nodes] == [url, url]
    assert mirror_of(tmp_path / "home") is None
    assert shown(nodes[0] / "stages/a") == f"{url}/stages/a"


def test_what_is_published_is_fetched_by_kind(nodes: tuple[Path, Path]) -> None:
    here, there = (home / "stages" / "pretrain-1" for home in nodes)
    put(here, done="1", encoder="2")
    (here / "encoder").rename(here / "encoder.safetensors")
    put(here, **{"lock": "", "metrics.jsonl.sent": "", "features.1.part/a": ""})
    put(here, **{"checkpoint_000000002/_digests.json": "3"})
    publish(here)
    fetch([there], notes)
    assert files(there) == {"done": "1"}
    fetch([there], inputs)
    assert files(there) == {"done": "1", "encoder.safetensors": "2"}
    fetch([there])
    assert files(there) == {"done": "1", "encoder.safetensors": "2", "checkpoint_000000002/_digests.json": "3"}


def test_a_checkpoint_without_its_digests_is_none(nodes: tuple[Path, Path]) -> None:
    here, there = (home / "stages" / "pretrain-1" for home in nodes)
    put(here, **{"checkpoint_000000002/state.pt": "half", "stage.json": "{}"})
    publish(here)
    fetch([there])
    assert files(there) == {"stage.json": "{}"}


def test_marks_go_up_last(nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, order = nodes[0] / "stages" / "embed-1", []
    put(here, **{"done.json": "{}", "a.txt": "", "features/_digests.json": "", "features/1.parquet": ""})
    store = mirror_at(here).store
    write = store.write

    def noted(name: str, data: bytes | Path) -> str:
        order.append(name.removeprefix("stages/embed-1/"))
        return write(name, data)

    monkeypatch.setattr(store, "write", noted)
    publish(here)
    assert sorted(order[:2]) == ["a.txt", "features/1.parquet"]
    assert order[2:] == ["features/_digests.json", "done.json"]
    publish(here)
    assert len(order) == 4, "what has not changed is not sent again"


def test_what_a_kill_left_stays_unless_another_node_went_on(nodes: tuple[Path, Path]) -> None:
    here, there = (home / "stages" / "pretrain-1" for home in nodes)
    put(here, log="1")
    publish(here)
    put(here, log="1 2", **{"checkpoint_000000004/_digests.json": "{}"})
    fetch([here])
    assert files(here) == {"log": "1 2", "checkpoint_000000004/_digests.json": "{}"}
    fetch([here], exact=True)
    assert files(here) == {"log": "1"}
    put(here, log="1 2", more="3")
    fetch([there])
    put(there, log="1 2 3 4")
    publish(there)
    fetch([here])
    assert files(here) == files(there) == {"log": "1 2 3 4"}


def stage_at(home: Path) -> Stage:
    return Stage("knn", {"k": 3}, {"k": 3}, home)


def test_a_stage_done_on_one_node_is_done_on_all(nodes: tuple[Path, Path]) -> None:
    here, there = map(stage_at, nodes)
    with here.held() as check:
        here.claim()
        check()
        here.finish({"top1": 62.5})
        assert not here.done, "another node could not see it"
        publish(here.folder)
    assert here.done
    assert not there.done
    pull(there.home)
    assert there.done
    assert there.result() == {"top1": 62.5}
    assert remove(there.folder)
    assert here.done
    pull(here.home, fresh=0.0)
    assert not here.done
    assert not here.folder.exists()


def test_two_drivers_never_do_one_stage(nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "POLL", 0.01)
    inside, most, made = [0], [0], [0]

    def work(home: Path) -> None:
        stage = stage_at(home)
        for _ in range(3):
            with stage.held() as check:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                if not stage.done:
                    made[0] += 1
                    stage.claim()
                    time.sleep(0.05)
                    check()
                    stage.finish({"top1": 1.0})
                    publish(stage.folder)
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(home,)) for home in (*nodes, *nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, made, inside) == ([1], [1], [0])


def test_a_claim_of_a_dead_owner_expires_and_a_sleeper_finds_out(
    nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "POLL", 0.01)
    folders = [home / "stages" / "knn-1" for home in nodes]
    monkeypatch.setattr(claim, "LEASE", 60.0)
    with claimed(folders[0]) as check:
        check()
        assert (is_claimed(folders[0]), is_claimed(folders[1])) == (False, True)
        monkeypatch.setattr(claim, "LEASE", 0.3)  # its thread sleeps for 15 s
        began = time.monotonic()
        with claimed(folders[1]):
            assert time.monotonic() - began > 0.3
            with pytest.raises(StorageError, match="gave no sign for too long, and another one does its work"):
                check()
    with claimed(folders[0]):
        pass


def test_a_dead_process_of_this_node_holds_nothing(nodes: tuple[Path, Path]) -> None:
    """Its lock is free, which says so at once."""
    folder = nodes[0] / "stages" / "knn-1"
    dead = {"node": mirror_at(folder).node, "process": 1, "beats": 7, "released": False}
    mirror_at(folder).store.write("claims/stages/knn-1/000000004", json.dumps(dead).encode())
    began = time.monotonic()
    with claimed(folder):
        assert time.monotonic() - began < claim.LEASE / 4
    names = [info.name for info in mirror_at(folder).store.list("claims/stages")]
    assert names == ["claims/stages/knn-1/000000005"]


def test_storage_that_cannot_claim_is_refused(nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store = mirror_at(nodes[0]).store
    assert can_create(store)
    assert can_create(store)
    monkeypatch.setattr(store, "create", lambda name, data: bool(store.write(name, data)))  # If-None-Match is ignored
    assert not can_create(store)
    monkeypatch.setattr(claim, "creators", {})
    with pytest.raises(StorageError, match=r"If-None-Match.*RAY_ADDRESS"), claimed(nodes[0] / "stages" / "knn-1"):
        pass


def test_room_is_made_of_what_storage_has(nodes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, unpublished = (nodes[0] / "stages" / f"embed-{number}" for number in (1, 2, 3))
    for folder in (old, new, unpublished):
        put(folder, **{"done.json": "{}", "features/_digests.json": "{}", "features/1.parquet": 1000 * "x"})
    publish(old)
    time.sleep(0.02)
    publish(new)
    monkeypatch.setattr(mirror, "IDLE", 0.0)
    monkeypatch.setenv("SELFSUP_MIRROR_GIB", str(2500 / 2**30))
    homes.make_room(nodes[0])
    assert files(old) == {"done.json": "{}"}
    assert len(files(new)) == len(files(unpublished)) == 3
    monkeypatch.setenv("SELFSUP_MIRROR_GIB", str(1 / 2**30))
    homes.make_room(nodes[0])
    assert len(files(new)) == 1
    assert len(files(unpublished)) == 3
    fetch([old])
    assert files(old)["features/1.parquet"] == 1000 * "x"


def test_a_file_that_is_removed_is_gone_everywhere(nodes: tuple[Path, Path]) -> None:
    here, there = (home / "runs" / "mae-1.failure" for home in nodes)
    put(here.parent, **{here.name: "{}", "mae-1.json": "{}"})
    publish(here.parent)
    pull(nodes[1])
    assert there.exists()
    forget(here)
    pull(nodes[1], fresh=0.0)
    assert files(there.parent) == {"mae-1.json": "{}"}


def test_no_wait_is_longer_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    home = node(f"s3://nobodys/home?endpoint_override={endpoint}&scheme=http", tmp_path, monkeypatch)
    put(home / "stages" / "knn-1", a="1")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://nobodys/home.*: stages/knn-1/a: .*; the same command continues"):
        publish(home / "stages" / "knn-1", patience=1.5)
    assert 1.0 <= time.monotonic() - began < 15


def test_storage_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt after a minute, here after a second."""
    monkeypatch.setattr(objects, "REQUEST_TIMEOUT", "1s")
    monkeypatch.setattr(objects, "RETRIES", objects.RETRIES | {"max_retries": 0})
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        home = node(f"s3://bucket/home?endpoint_override={endpoint}&scheme=http&anonymous=true", tmp_path, monkeypatch)
        put(home / "stages" / "knn-1", a="1")
        began = time.monotonic()
        with pytest.raises(StorageError, match="the same command continues"):
            publish(home / "stages" / "knn-1", patience=1.5)
        assert 1.0 <= time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://AKIA:hunter2@bucket/home", "SELFSUP_HOME: s3://bucket/home: .* AWS_ACCESS_KEY_ID"),
        ("file:///shared", "expected a folder, or storage that can be written"),
        ("s3://" + 300 * "b", "in at most 200 characters"),
    ],
)
def test_what_can_be_no_home(url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=message) as refusal:
        node(url, tmp_path, monkeypatch)
    assert "hunter2" not in str(refusal.value)


def test_storage_that_nothing_can_open_is_told() -> None:
    with pytest.raises(SpecError, match="SELFSUP_HOME: nosuch://x: not storage that can be read"):
        open_store("nosuch://x")
    with pytest.raises(SpecError, match="endpoint: unknown option; the options are endpoint_override"):
        open_store("s3://bucket/a?endpoint=here")
    for url in ("gs://bucket/a?endpoint_override=here", "gs://anonymous@bucket/a"):  # which data may be at
        with pytest.raises(
            SpecError, match=r"options in a URL are those of s3:// alone; gs:// takes them from the env"
        ):
            open_store(url)


def test_mlflow_needs_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = node("s3://bucket/home", tmp_path, monkeypatch)
    with pytest.raises(TrackError, match=r"MLFLOW_TRACKING_URI is not set, and s3://bucket/home cannot hold"):
        default_uri(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert default_uri(home) == "http://mlflow:5000"
