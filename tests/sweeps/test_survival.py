"""`selfsup sweep` killed from every side: the same command afterwards ends with the table of an undisturbed sweep."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from servers import answers, free_ports
from sweeping import BIN, PATIENCE, Bench, ended, processes, same, served
from tiny import BACKBONE

from selfsup.pipelines.data.manifest import Manifest

pytestmark = pytest.mark.slow  # each sweep takes half a minute
QUIET = subprocess.DEVNULL
SECRET = "open-sesame"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Callable[[], Bench]:
    folder = tmp_path_factory.mktemp("survival")
    sets = {name: make(folder / name, number=number).root for name, number in (("train", 64), ("val", 16))}
    spec = folder / "survival.yaml"
    told = {
        "name": "survival",
        "method": "simclr",
        "data": sets,
        "backbone": BACKBONE,
        "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
        "train": {"duration": {"steps": 100}, "batch": 16, "checkpoint_every": 10, "log_every": 5},
        "stream": {"lanes": 4, "chunk": 8, "mix": 4},
        "evals": {"every": {"steps": 10}, "knn": {"k": 3}},
        "baselines": False,
        "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
        "ablate": {"hyper.temperature": [0.2]},
        "seeds": 2,
    }
    spec.write_text(yaml.safe_dump(told))
    return lambda: Bench(tmp_path_factory.mktemp("bench"), spec)


@pytest.fixture(scope="module")
def undisturbed(bench: Callable[[], Bench]) -> Bench:
    place = bench()
    place.sweep()
    place.command("status")
    found = place.table()
    assert set(found.status) == {"done"}
    assert len(found[found.metric == "eval/knn/top1"]) == 4
    assert [[step for step, _ in curve] for curve in place.curves().values()] == [[*range(10, 100, 10)]] * 4
    return place


def left_of(session: int) -> list[str]:
    """The processes that outlive the one that began their session, less Ray's agents, which end within minutes."""
    return [command for command in processes(session).values() if not command.endswith("Agent")]


@pytest.mark.parametrize("sign", ["pretrain-*/checkpoint_*", "knn-*/metrics.jsonl"])
def test_the_driver_killed(bench: Callable[[], Bench], undisturbed: Bench, sign: str) -> None:
    place = bench()
    with place.sweeping() as process:
        place.trains(process, sign)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + PATIENCE
        while left_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left_of(process.pid) == []
    told = place.command("status", code=1)
    assert " 0 running" in told.splitlines()[0], told
    assert list(place.home.glob("tune/*"))
    place.sweep()
    assert list(place.home.glob("tune/*")) == []
    same(place, undisturbed)


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_part_of_ray_killed(bench: Callable[[], Bench], undisturbed: Bench, part: str) -> None:
    place = bench()
    with place.sweeping() as process:
        place.trains(process)
        killed = [number for number, command in processes(process.pid).items() if f"/{part} " in command]
        since = time.monotonic()
        for number in killed:
            os.kill(number, signal.SIGKILL)
        told, _ = process.communicate()
        took = time.monotonic() - since
    assert (len(killed), process.returncode) == (1, 1), told
    assert took < 15
    assert "of Ray has died (killed, or out of memory); the same command continues\n" in told
    place.sweep()
    same(place, undisturbed)


def test_stopped_and_then_continued(bench: Callable[[], Bench], undisturbed: Bench) -> None:
    place = bench()
    with place.sweeping() as process:
        place.trains(process)
        process.terminate()  # as `ray job stop`, and as Ctrl-C from there on
        told, _ = process.communicate()
    assert process.returncode == 130, told
    assert "the same command continues" in told
    place.sweep()
    same(place, undisturbed)


def test_the_cluster_stopped(bench: Callable[[], Bench], undisturbed: Bench) -> None:
    place = bench()
    with contextlib.ExitStack() as stack:
        with head(place.environment) as address:
            place.environment["RAY_ADDRESS"] = address
            process = stack.enter_context(place.sweeping())
            place.trains(process)
        told, _ = process.communicate()
    assert process.returncode not in (0, None), told
    with head(place.environment) as address:
        place.environment["RAY_ADDRESS"] = address
        place.sweep()
    same(place, undisturbed)


def test_the_mlflow_server_killed_under_it(bench: Callable[[], Bench], undisturbed: Bench) -> None:
    """And its password is told and kept nowhere: not by Ray, by the server, by MLflow's client or by us."""
    place = bench()
    (port,) = free_ports(1)
    place.environment["MLFLOW_TRACKING_URI"] = f"http://somebody:{SECRET}@127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        place.environment["TMPDIR"] = str(folder)
        with served(place.home, port):
            process = stack.enter_context(place.sweeping())
            place.trains(process)
        told, _ = process.communicate()  # the server is gone for good: the runs end, their numbers wait
        assert process.returncode == 5, told
        assert len(list(place.home.glob("stages/knn-*/done.json"))) == 4
        with served(place.home, port):
            told += place.sweep()
            told += place.command("report")
        told += place.command("report", code=5)
        assert list(folder.glob("ray-*/ray/session_*/logs/*"))
        assert SECRET not in told
        assert [path for path in (*place.home.rglob("*"), *folder.rglob("*")) if holds(path, SECRET)] == []
    same(place, undisturbed)


def holds(path: Path, text: str) -> bool:
    """A file, in its name or in its bytes."""
    return text in path.name or (path.is_file() and text.encode() in path.read_bytes())


@contextlib.contextmanager
def head(environment: dict[str, str]) -> Iterator[str]:
    """The address of a Ray cluster of its own, which `ray stop` would end as this does: all of its processes."""
    with tempfile.TemporaryDirectory(prefix="head-") as short:  # a path of pytest's is too long for Ray's sockets
        port, dashboard = free_ports(2)
        argv = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
        argv += [f"--dashboard-port={dashboard}", "--disable-usage-stats", f"--temp-dir={short}"]
        process = subprocess.Popen(
            argv,
            env=environment,
            stdout=QUIET,
            stderr=QUIET,
            cwd=environment["SELFSUP_HOME"].rpartition("/")[0],
            start_new_session=True,
        )
        with ended(process):
            try:
                answers(port)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
