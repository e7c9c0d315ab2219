"""A real Ray head with a dashboard and token authentication, as `ray start --head` makes it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from servers import free_ports

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


class Head:
    """address: of its job server. environment: what a user who holds the token has set. metrics_port: of Prometheus."""

    def __init__(self, address: str, environment: dict[str, str], metrics_port: int = 0) -> None:
        self.address, self.environment, self.metrics_port = address, environment, metrics_port

    def call(self, *argv: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            argv,
            cwd=cwd,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


@contextlib.contextmanager
def ray_head(variables: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Start a head for the duration of the block. variables: of its environment, which its jobs inherit."""
    with tempfile.TemporaryDirectory(prefix="head-") as short:  # a path of pytest's is too long for Ray's sockets
        folder = Path(short)
        (folder / "token").write_text("a-token-of-this-test-alone-0123456789")
        (folder / "token").chmod(0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job's `python` is that of the head
            "SELFSUP_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
            "RAY_metrics_report_interval_ms": "500",
            **(variables or {}),
        }
        ports = [f"--{name}={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
        argv = [RAY, "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
        argv += [*ports, "--disable-usage-stats", f"--temp-dir={folder / 'ray'}", "--object-store-memory=200000000"]
        with (folder / "log").open("w") as log:
            started = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
        numbers = [int(port.partition("=")[2]) for port in ports]
        head = Head(f"http://127.0.0.1:{numbers[1]}", environment, numbers[-1])
        try:
            answered = wait_for(head, started)
            assert answered, (folder / "log").read_text()
            yield head
        finally:
            stop(started)


PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)


def wait_for(head: Head, started: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and started.poll() is None:
        if head.call(RAY, "job", "list", "--address", head.address).returncode == 0:
            return True
    return False


def stop(started: "subprocess.Popen[bytes]") -> None:
    """The head, which ends its own processes, and then what is left of their group."""
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def get(url: str, token: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())
