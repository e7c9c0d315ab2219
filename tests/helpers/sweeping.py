"""Places to sweep in, and the processes of commands: begun, watched, killed, and compared by what they leave."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from servers import answers

from selfsup.metrics_log import records
from selfsup.mlflow_store import ui_command

BIN = Path(sys.executable).parent
PATIENCE = 600  # seconds for what is sure to come, however busy the machine
NUMBERS = ["arm", "seed", "metric"]
HISTORY = r"seconds|per_second|input_wait|restarts|peak_memory|shared_steps"  # how a run went, which no two runs share


class Bench:
    """A place to sweep in, and the processes of it."""

    def __init__(self, folder: Path, spec: Path) -> None:
        self.home, self.spec = folder / "home", spec
        self.program = [str(BIN / "selfsup")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = kept | {"SELFSUP_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    @contextlib.contextmanager
    def sweeping(self) -> "Iterator[subprocess.Popen[str]]":
        """A sweep; what is left of it at the end of the block, its Ray with it, is killed."""
        process = subprocess.Popen(
            [*self.program, "sweep", str(self.spec)],
            env=self.environment,
            cwd=self.home.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with ended(process):
            yield process

    def sweep(self) -> str:
        with self.sweeping() as process:
            told, _ = process.communicate()
        assert process.returncode == 0, told
        return told

    def trains(self, process: "subprocess.Popen[str]", sign: str = "pretrain-*/checkpoint_*") -> None:
        """Wait until a run of this sweep has a checkpoint, or another file as a sign, and is not done."""
        until(lambda: any(self.home.glob(f"stages/{sign}")), process)
        assert not list(self.home.glob("stages/knn-*/done.json"))

    def command(self, name: str, *, code: int = 0) -> str:
        """Return all that the command prints."""
        argv = [str(BIN / "selfsup"), name, str(self.spec)]
        done = subprocess.run(
            argv, env=self.environment, cwd=self.home.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def table(self) -> pd.DataFrame:
        """What the report holds, less what no two runs share."""
        found = pd.read_csv(self.home / "reports" / self.spec.stem / "results.csv")
        return found[~found.metric.str.contains(HISTORY)].sort_values(NUMBERS)[[*NUMBERS, "value", "status"]]

    def curves(self, kind: str = "knn", metric: str = "top1") -> dict[str, list[tuple[int, float]]]:
        """Return steps and values that stages of a kind logged, by stage."""
        logs = {path.parent.name: records(path) for path in self.home.glob(f"stages/{kind}-*/metrics.jsonl")}
        return {stage: [(record.step, record.values[metric]) for record in log] for stage, log in logs.items()}

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the weights of every trained objective, by its stage."""
        files = self.home.glob("stages/pretrain-*/method.safetensors")
        return {path.parent.name: load_file(path) for path in files}


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait until a condition holds; raise an error where the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def same(place: Bench, other: Bench) -> None:
    """Assert that tables are equal, and that each evaluation during training was made once, with the same value."""
    found, expected = (each.table().reset_index(drop=True) for each in (place, other))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert place.curves() == other.curves()
    assert not list(place.home.glob("stages/*/snapshots"))


def processes(session: int) -> dict[int, str]:
    """The commands of the processes of a session, by number."""
    listing = ["ps", "-ww", "-e", "-o", "sid=,pid=,cmd="]  # ww: whole commands, where some versions cut them at 80
    told = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=2) for line in told.splitlines())
    return {int(process): command for number, process, command in lines if int(number) == session}


def kill_session(session: int) -> None:
    """Kill every process of a session at once."""
    for number in processes(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Kill what is left of a session at the end of the block."""
    try:
        yield
    finally:
        kill_session(process.pid)
        process.wait()


@contextlib.contextmanager
def served(home: Path, port: int) -> Iterator[None]:
    """An MLflow server, killed at the end."""
    home.mkdir(exist_ok=True)
    argv, environment = ui_command(f"sqlite:///{home}/mlflow.db", home, port)
    with (home / "server.log").open("a") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
    with ended(process):
        answers(port)
        yield
