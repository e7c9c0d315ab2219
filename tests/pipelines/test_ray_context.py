"""A local Ray while it runs: who can reach it, the check of its nodes, and its claims for storage that has none."""

import os
import signal
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
import ray
from servers import object_store

from selfsup import claim
from selfsup.claim import claimed
from selfsup.errors import SelfsupError
from selfsup.homes import home_at, mirror_of
from selfsup.pipelines.cluster import creator, nodes
from selfsup.pipelines.cluster.creator import keep_claims
from selfsup.pipelines.cluster.nodes import check_shared_folder
from selfsup.pipelines.cluster.ray_context import SOCKET
from selfsup.stage import digest

pytestmark = pytest.mark.usefixtures("cluster")
LISTENING, LOOPBACK = "0A", {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def own() -> Path:
    """The folder of the Ray of this process."""
    return Path(ray._private.worker._global_node.get_session_dir_path()).parent.parent  # type: ignore[attr-defined]


def members() -> Iterator[int]:
    """All processes of the Ray of this one, by the place of their temporary files."""
    yield os.getpid()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is somebody else's
            if f"TMPDIR={own()}".encode() in path.read_bytes().split(b"\0"):
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


def test_nothing_of_a_local_ray_listens_beyond_loopback() -> None:
    worker = ray.get(ray.remote(lambda: os.getpid()).remote())
    processes = set(members())
    assert worker in processes
    assert set(listening(processes)) <= LOOPBACK
    assert list(listening({worker}))


def test_nobody_else_reaches_what_its_processes_start_from() -> None:
    assert (own() / "python").exists()
    assert stat.S_IMODE(own().stat().st_mode) == 0o700


def test_no_socket_of_ray_has_a_longer_path_than_expected() -> None:
    made = [str(path.relative_to(own())) for path in own().glob("ray/session_2*/sockets/*")]
    assert made
    assert max(map(len, made)) <= len(SOCKET)


def test_nodes_that_see_another_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(nodes, "SYNC_TIMEOUT", 0.2)
    check_shared_folder(tmp_path)
    monkeypatch.setattr(nodes, "_other_nodes", lambda: {"a (10.0.0.1)": here})
    check_shared_folder(tmp_path)  # the very same folder, asked for by a task
    monkeypatch.setattr(nodes, "write_back", lambda *_: "")  # as a node that writes to its own disk
    with pytest.raises(
        SelfsupError, match=rf"sees {tmp_path} as this one.*\n  a \(10.0.0.1\): .*No such file.*\nPut it on"
    ):
        check_shared_folder(tmp_path)
    monkeypatch.setattr(nodes, "write_back", lambda *_: 1 / 0)
    with pytest.raises(SelfsupError, match="ZeroDivisionError"):
        check_shared_folder(tmp_path)
    monkeypatch.setattr(nodes, "_other_nodes", lambda: {"gone": "0" * 56})
    with pytest.raises(SelfsupError, match="gone: "):
        check_shared_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nodes_that_do_not_reach_storage_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(nodes, "_other_nodes", lambda: {"a (10.0.0.1)": here})
    with object_store("bucket") as endpoint:
        home = home_at(f"s3://bucket/home?endpoint_override={endpoint}&scheme=http")
        monkeypatch.setattr(nodes, "read_back", lambda *_: "no credentials")
        with pytest.raises(
            SelfsupError,
            match=r"not every node of the cluster reaches s3://bucket/home.*:\n  a \(.*: no cred.*\nGive each",
        ):
            check_shared_folder(home)
        mirror = mirror_of(home)
        assert mirror
        assert [*mirror.store.list("")] == []


def test_an_actor_lets_one_driver_after_another_have_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where storage writes whatever is there; and the actor that takes the place of one that died does, too."""
    inside, most = [0], [0]

    def drive(number: int) -> None:
        with claimed(homes[number % 2] / "stages" / "knn-1"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            if number == 3:
                os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
            time.sleep(0.02)
            inside[0] -= 1

    monkeypatch.setattr(claim, "POLL", 0.01)
    monkeypatch.setattr(creator, "can_create", lambda _: False)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with object_store("bucket") as endpoint:
        boto3.client("s3", endpoint_url=f"http://{endpoint}").put_bucket_acl(Bucket="bucket", ACL="public-read-write")
        url, homes = f"s3://bucket/home?endpoint_override={endpoint}&scheme=http&anonymous=true", list[Path]()
        for node in "12":
            monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / node))
            homes.append(home_at(url))
            mirror = mirror_of(homes[-1])
            assert mirror
            monkeypatch.setattr(mirror.store, "create", mirror.store.write)
        keep_claims(homes[0])
        actor = ray.get_actor(f"selfsup-claims-{digest(url)}", "selfsup")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(drive, range(8)))
        ray.kill(actor)
    assert (most, inside) == ([1], [0])
