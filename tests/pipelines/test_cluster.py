"""The Ray that runs go to: nobody else's, out of everybody's reach; where it is missing, told within seconds."""

import os
import socket
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
from servers import free_ports

from selfsup.errors import SelfsupError
from selfsup.pipelines.cluster import nodes, ray_context
from selfsup.pipelines.cluster.nodes import fewest_nodes, write_back


def test_what_a_node_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "SYNC_TIMEOUT", 0.0)
    assert write_back(tmp_path / "away" / "node", "nonce") == f"{tmp_path}/away/token: No such file or directory"
    (tmp_path / "token").write_text("of another sweep")
    assert write_back(tmp_path / "node", "nonce") == f"{tmp_path}/token: not what was written there"
    (tmp_path / "token").write_text("nonce")
    assert write_back(tmp_path / "node", "nonce") == ""
    assert (tmp_path / "node").read_text() == "nonce"
    (tmp_path / "folder").mkdir()  # which no file can take the place of, as on a disk that cannot be written to
    assert write_back(tmp_path / "folder", "nonce") == f"{tmp_path}/folder: Is a directory"


@pytest.mark.parametrize(
    ("workers", "resources", "number"),
    [
        (1, {"CPU": 1.0}, 1),
        (4, {"CPU": 1.0, "GPU": 1.0}, 1),
        (5, {"CPU": 1.0, "GPU": 1.0}, 2),
        (5, {"CPU": 6.0, "GPU": 1.0}, 2),  # two on either node: one more than there is room for
        (120, {"CPU": 0.1}, 1),
        (121, {"CPU": 0.1}, 2),
        (1, {"GPU": 9.0}, 2),  # which never starts
    ],
)
def test_workers_lie_on_as_few_nodes_as_hold_them(
    workers: int, resources: dict[str, float], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small, dead = {"CPU": 12.0, "GPU": 4.0}, {"CPU": 12.0, "GPU": 2.0}, {"CPU": 99.0, "GPU": 99.0}
    cluster = [{"Alive": node is not dead, "Resources": node} for node in (small, dead, large)]
    monkeypatch.setattr(ray, "nodes", lambda: cluster)
    assert fewest_nodes(workers, resources) == number


def refused(address: str, match: str) -> None:
    before = time.monotonic()
    with (
        pytest.raises(SelfsupError, match=f"no Ray cluster answers at RAY_ADDRESS={address}: {match}.*ray start"),
        ray_context.existing_ray(address),
    ):
        pass
    assert time.monotonic() - before < 10


def test_a_cluster_that_is_gone_is_told_at_once() -> None:
    (port,) = free_ports(1)
    refused(f"127.0.0.1:{port}", ".*refused")


def test_whoever_else_listens_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_context, "CONNECT_TIMEOUT", 0.5)
    with closing(socket.create_server(("", 0))) as silent:
        refused(f"127.0.0.1:{silent.getsockname()[1]}", "the process that listens there is not Ray")


def test_addresses_of_no_cluster() -> None:
    refused("nonsense", "Invalid address")
    refused("ray://127.0.0.1:10001", "Ray Client loses")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What Ray is asked for; it starts nothing."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ray, "init", lambda *args, **_: found.append(args))
    monkeypatch.setattr(ray_context, "disable_progress_bars", lambda: None)
    monkeypatch.setattr(ray_context, "watchdog", lambda **_: nullcontext())
    monkeypatch.setattr(ray_context, "fork_server", lambda _: nullcontext(nullcontext()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return found


@pytest.mark.parametrize("address", ["", "local"])
def test_no_ray_that_lives_on_the_machine_is_joined(
    address: str, asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with ray_context.ray_context():
        assert asked == [("local",)]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("own", [None, "7"])
def test_workers_have_the_priority_of_other_processes_unless_the_user_says_another(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [name] = ray_context.LOCAL
    monkeypatch.setenv(name, own or "")
    if own is None:
        monkeypatch.delenv(name)
    with ray_context.ray_context():
        assert os.environ[name] == (own or "0")


@pytest.mark.usefixtures("asked")
def test_a_ray_that_does_not_start_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup. This could happen.\nMore of it")

    monkeypatch.setattr(ray, "init", late)
    told = r"did not start .*: The current node timed out .* happen\. The same command tries again; its logs: /"
    with pytest.raises(SelfsupError, match=told), ray_context.ray_context():
        pass


def test_a_long_path_is_told_before_ray_starts(
    asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with (
        pytest.raises(SelfsupError, match=r"too long a path for .* sockets .* set TMPDIR"),
        ray_context.ray_context(),
    ):
        pass
    assert asked == []
