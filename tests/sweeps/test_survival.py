"""`selfsup sweep` killed from every side: the same command afterwards ends with the table of an undisturbed sweep."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from servers import answers, free_ports
from tiny import BACKBONE

from selfsup.pipelines.manifest import Manifest
from selfsup.store import ui_command

pytestmark = pytest.mark.slow  # each sweep takes half a minute
BIN = Path(sys.executable).parent
QUIET = subprocess.DEVNULL
NUMBERS = ["arm", "seed", "metric"]
HISTORY = r"seconds|per_second|restarts|peak_memory|shared_steps"  # how a run went, which no two runs share


class Bench:
    """A place to sweep in, and the processes of it."""

    def __init__(self, folder: Path, spec: Path) -> None:
        self.home, self.spec = folder / "home", spec
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = kept | {"SELFSUP_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def start(self) -> "subprocess.Popen[str]":
        argv = [str(BIN / "selfsup"), "sweep", str(self.spec)]
        return subprocess.Popen(
            argv,
            env=self.environment,
            cwd=self.home.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def sweep(self) -> str:
        process = self.start()
        told, _ = process.communicate()
        assert process.returncode == 0, told
        return told

    def trains(self) -> None:
        """Wait until a run has a checkpoint and is not done."""
        deadline = time.monotonic() + 120
        while not list(self.home.glob("stages/pretrain-*/checkpoint_*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not list(self.home.glob("stages/knn-*/done.json"))

    def status(self) -> "subprocess.CompletedProcess[str]":
        argv = [str(BIN / "selfsup"), "status", str(self.spec)]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)

    def table(self) -> pd.DataFrame:
        """What the report holds, less what no two runs share."""
        found = pd.read_csv(self.home / "reports" / "survival" / "results.csv")
        return found[~found.metric.str.contains(HISTORY)].sort_values(NUMBERS)[[*NUMBERS, "value", "status"]]


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
        "evals": {"knn": {"k": 3}},
        "baselines": False,
        "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
        "ablate": {"hyper.temperature": [0.2]},
        "seeds": 2,
    }
    spec.write_text(yaml.safe_dump(told))
    return lambda: Bench(tmp_path_factory.mktemp("bench"), spec)


@pytest.fixture(scope="module")
def undisturbed(bench: Callable[[], Bench]) -> pd.DataFrame:
    place = bench()
    place.sweep()
    assert place.status().returncode == 0
    found = place.table()
    assert set(found.status) == {"finished"}
    assert len(found[found.metric == "eval/knn/top1"]) == 4
    return found


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True), check_exact=True)


def processes(session: int) -> dict[int, str]:
    """The commands of the processes of a session, by number."""
    listing = ["ps", "-ww", "-e", "-o", "sid=,pid=,cmd="]  # ww: whole commands, where some versions cut them at 80
    told = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=2) for line in told.splitlines())
    return {int(process): command for number, process, command in lines if int(number) == session}


def left_of(session: int) -> list[str]:
    """The processes that outlive the one that began their session, less Ray's agents, which end within minutes."""
    return [command for command in processes(session).values() if not command.endswith("Agent")]


def test_the_driver_killed(bench: Callable[[], Bench], undisturbed: pd.DataFrame) -> None:
    place = bench()
    process = place.start()
    place.trains()
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while (left := left_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    told = place.status()
    assert told.returncode == 1
    assert " 0 running" in told.stdout.splitlines()[0], told.stdout
    assert list(place.home.glob("tune/*"))
    place.sweep()
    assert list(place.home.glob("tune/*")) == []
    same(place.table(), undisturbed)


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_part_of_ray_killed(bench: Callable[[], Bench], undisturbed: pd.DataFrame, part: str) -> None:
    place = bench()
    process = place.start()
    place.trains()
    killed, since = [key for key, command in processes(process.pid).items() if f"/{part} " in command], time.monotonic()
    for each in killed:
        os.kill(each, signal.SIGKILL)
    told, _ = process.communicate()
    assert (len(killed), process.returncode) == (1, 1), told
    assert time.monotonic() - since < 15
    assert "of Ray has died (killed, or out of memory); the same command continues\n" in told
    place.sweep()
    same(place.table(), undisturbed)


def test_stopped_and_then_continued(bench: Callable[[], Bench], undisturbed: pd.DataFrame) -> None:
    place = bench()
    process = place.start()
    place.trains()
    process.terminate()  # as `ray job stop`, and as Ctrl-C from there on
    told, _ = process.communicate()
    assert process.returncode == 130, told
    assert "the same command continues" in told
    place.sweep()
    same(place.table(), undisturbed)


def test_the_cluster_stopped(bench: Callable[[], Bench], undisturbed: pd.DataFrame) -> None:
    place = bench()
    with head(place.environment) as address:
        place.environment["RAY_ADDRESS"] = address
        process = place.start()
        place.trains()
    told, _ = process.communicate()
    assert process.returncode not in (0, None), told
    with head(place.environment) as address:
        place.environment["RAY_ADDRESS"] = address
        place.sweep()
    same(place.table(), undisturbed)


def test_the_mlflow_server_killed_under_it(bench: Callable[[], Bench], undisturbed: pd.DataFrame) -> None:
    place = bench()
    (port,) = free_ports(1)
    place.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with served(place.home, port):
        process = place.start()
        place.trains()
    told, _ = process.communicate()  # the server is gone for good: the runs end, their numbers wait
    assert process.returncode == 5, told
    assert len(list(place.home.glob("stages/knn-*/done.json"))) == 4
    with served(place.home, port):
        place.sweep()
    same(place.table(), undisturbed)


@contextlib.contextmanager
def served(home: Path, port: int) -> Iterator[None]:
    """An MLflow server, killed at the end."""
    home.mkdir(exist_ok=True)
    argv, environment = ui_command(f"sqlite:///{home}/mlflow.db", home, port)
    process = subprocess.Popen(argv, env=environment, stdout=QUIET, stderr=QUIET, start_new_session=True)
    try:
        answers(port)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
        try:
            answers(port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
