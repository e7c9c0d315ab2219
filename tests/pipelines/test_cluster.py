"""The Ray that runs go to: nobody else's, out of everybody's reach; where it is missing, told within seconds."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from servers import free_ports

from selfsup.errors import SelfsupError
from selfsup.pipelines import cluster as module
from selfsup.pipelines import nodes
from selfsup.pipelines.cluster import SOCKET, cluster, joined
from selfsup.pipelines.nodes import answer, check_shared

LISTENING, LOOPBACK = "0A", {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def session() -> Path:
    return Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]


def members() -> Iterator[int]:
    """All processes of the Ray of this one, by the place of their temporary files."""
    yield os.getpid()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is somebody else's
            if f"TMPDIR={session().parent}".encode() in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def listening(processes: Iterable[int]) -> Iterator[str]:
    """The addresses, as the kernel writes them, at which these take connections."""
    inodes = set()
    for file in (file for process in processes for file in Path(f"/proc/{process}/fd").glob("*")):
        with suppress(OSError):
            inodes.add(os.readlink(file))  # noqa: PTH115 (what it names is no path)
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTENING and f"socket:[{line.split()[9]}]" in inodes:
                yield local.partition(":")[0]


@pytest.mark.usefixtures("cluster")
def test_nothing_of_an_embedded_ray_listens_beyond_loopback() -> None:
    worker = ray.get(ray.remote(lambda: os.getpid()).remote())
    processes = set(members())
    assert worker in processes
    assert set(listening(processes)) <= LOOPBACK
    assert list(listening({worker}))


@pytest.mark.usefixtures("cluster")
def test_no_socket_of_ray_has_a_longer_path_than_was_reckoned_with() -> None:
    made = [str(path.relative_to(session().parent)) for path in session().glob("sockets/*")]
    assert made
    assert max(map(len, made)) <= len(SOCKET)


@pytest.mark.usefixtures("cluster")
def test_nodes_that_see_another_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(nodes, "SETTLE", 0.2)
    check_shared(tmp_path)
    monkeypatch.setattr(nodes, "_others", lambda: {"a (10.0.0.1)": here})
    check_shared(tmp_path)  # the very same folder, asked for by a task
    monkeypatch.setattr(nodes, "answer", lambda *_: "")  # as a node that writes to its own disk
    with pytest.raises(
        SelfsupError, match=rf"sees {tmp_path} as this one.*\n  a \(10.0.0.1\): .*No such file.*\nPut it on"
    ):
        check_shared(tmp_path)
    monkeypatch.setattr(nodes, "answer", lambda *_: 1 / 0)
    with pytest.raises(SelfsupError, match="ZeroDivisionError"):
        check_shared(tmp_path)
    monkeypatch.setattr(nodes, "_others", lambda: {"gone": "0" * 56})
    with pytest.raises(SelfsupError, match="gone: "):
        check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_node_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "SETTLE", 0.0)
    assert answer(tmp_path / "away" / "node", "nonce") == f"{tmp_path}/away/word: No such file or directory"
    (tmp_path / "word").write_text("of another sweep")
    assert answer(tmp_path / "node", "nonce") == f"{tmp_path}/word: not what was written there"
    (tmp_path / "word").write_text("nonce")
    assert answer(tmp_path / "node", "nonce") == ""
    assert (tmp_path / "node").read_text() == "nonce"
    (tmp_path / "folder").mkdir()  # which no file can take the place of, as on a disk that cannot be written to
    assert answer(tmp_path / "folder", "nonce") == f"{tmp_path}/folder: Is a directory"


def refused(address: str, match: str) -> None:
    before = time.monotonic()
    with (
        pytest.raises(SelfsupError, match=f"no Ray cluster answers at RAY_ADDRESS={address}: {match}.*ray start"),
        joined(address),
    ):
        pass
    assert time.monotonic() - before < 10


def test_a_cluster_that_is_gone_is_told_at_once() -> None:
    (port,) = free_ports(1)
    refused(f"127.0.0.1:{port}", ".*refused")


def test_whoever_else_listens_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REACH", 0.5)
    with closing(socket.create_server(("", 0))) as silent:
        refused(f"127.0.0.1:{silent.getsockname()[1]}", "what listens there is no Ray")


def test_addresses_of_no_cluster() -> None:
    refused("nonsense", "Invalid address")
    refused("ray://127.0.0.1:10001", "not through Ray Client")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What Ray is asked for; it starts nothing."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ray, "init", lambda *args, **_: found.append(args))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return found


@pytest.mark.parametrize("address", ["", "local"])
def test_no_ray_that_lives_on_the_machine_is_joined(
    address: str, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with cluster():
        assert asked == [("local",)]


@pytest.mark.usefixtures("asked")
def test_a_ray_that_does_not_start_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup. This could happen.\nMore of it")

    monkeypatch.setattr(ray, "init", late)
    told = r"did not start .*: The current node timed out .* happen\. The same command tries again; its logs: /"
    with pytest.raises(SelfsupError, match=told), cluster():
        pass


def test_a_long_path_is_told_before_ray_starts(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(SelfsupError, match=r"too long a path for the sockets of Ray, by .* point TMPDIR"), cluster():
        pass
    assert asked == []
