"""A real Ray cluster of several nodes on this machine, each with an address, a temporary folder and a store of its own.

Nodes join and leave as machines do: by `ray start`, and by the death of all of their processes at once.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ray_head import RAY, Head
from servers import answers, free_ports
from sweeping import PATIENCE, kill_session, processes

STORE = 100 * 2**20  # bytes of each node's object store
TRIES = 5  # to start a node, which Ray gives 30 s, however busy the machine
AGENT = "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"
ALIVE = """import ray
ray.init(logging_level="ERROR")
print(*[node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]])"""


class RayNode:
    """A node. ip: on the loopback interface. session: of its processes."""

    def __init__(self, ip: str, session: int) -> None:
        self.ip, self.sessions = ip, [session]

    def processes(self, part: str) -> list[int]:
        """Return the numbers of its processes with a word in their command."""
        found = {number: command for session in self.sessions for number, command in processes(session).items()}
        return [number for number, command in found.items() if part in command]

    def kill(self) -> None:
        """End it as a machine that loses power."""
        for session in self.sessions:
            kill_session(session)

    def restart(self, part: str) -> None:
        """Kill one of its processes, and start it again as it was, as what watches over it would."""
        [number] = self.processes(part)
        argv, variables = (Path(f"/proc/{number}/{file}").read_text().split("\0") for file in ("cmdline", "environ"))
        environment = dict(variable.split("=", 1) for variable in variables if variable)
        os.kill(number, signal.SIGKILL)
        process = subprocess.Popen(argv[:-1], env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        self.sessions.append(process.pid)


class RayNodes:
    """A head and the nodes that have joined it. address: as RAY_ADDRESS. environment: of users and of nodes."""

    def __init__(self, folder: Path, *, dashboard: bool, variables: dict[str, str]) -> None:
        self.folder, self.nodes, self._joined, self._started = folder, list[RayNode](), 0, 0
        (folder / "token").write_text("a-token-of-this-test-alone-0123456789")
        (folder / "token").chmod(0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = environment | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job's `python` is that of the head
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",
        }
        self.environment |= variables
        self._port, page, client = free_ports(3)
        self.address, self.dashboard = f"127.0.0.2:{self._port}", f"http://127.0.0.1:{page}"
        self._head = ["--head", f"--port={self._port}", f"--dashboard-port={page}"]
        self._head += [f"--ray-client-server-port={client}", "--dashboard-host=127.0.0.1"]
        self._head += [f"--include-dashboard={dashboard}"]

    def client(self, home: Path) -> Head:
        """Return what a user has who submits jobs, which keep everything in a home."""
        return Head(self.dashboard, self.environment | {"SELFSUP_HOME": str(home)})

    def begin(self, cpus: int) -> RayNode:
        """Start the head, or one in its place on another machine, which finds nothing in its temporary folder."""
        node = self._start(0, cpus, self._head)
        answers(self._port, node.ip)
        self.nodes.insert(0, self.nodes.pop())
        return node

    def join(self, cpus: int, *, hidden: Path | None = None) -> RayNode:
        """Let a node of so many CPUs join; return it once it can be used.

        hidden: a folder in whose place the node sees another one, as a machine of its own does.
        """
        self._joined += 1
        apart = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "-"] if hidden else []
        node = self._start(self._joined, cpus, [f"--address={self.address}"], apart)
        deadline, environment = time.monotonic() + PATIENCE, self.environment | {"RAY_ADDRESS": self.address}
        argv, told = [sys.executable, "-c", ALIVE], ""
        while node.ip not in told.split():
            assert time.monotonic() < deadline, told
            told = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False).stdout
        return node

    def _start(self, number: int, cpus: int, options: list[str], apart: Sequence[str] = ()) -> RayNode:
        self._started += 1
        ip, log = f"127.0.0.{number + 2}", self.folder / f"log-{number}"
        argv = [*apart, RAY, "start", *options, f"--num-cpus={cpus}", f"--node-ip-address={ip}"]
        argv += [f"--temp-dir={self.folder / f'node-{self._started}'}", f"--object-store-memory={STORE}"]
        argv += [f"--{name}={port}" for name, port in zip(AGENT, free_ports(len(AGENT)), strict=True)]
        argv += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false", "--disable-usage-stats"]
        for _ in range(TRIES):
            with log.open("a") as file:
                started = subprocess.Popen(
                    argv, env=self.environment, stdout=file, stderr=file, cwd=self.folder, start_new_session=True
                )
            node = RayNode(ip, started.pid)
            if started.wait() == 0:
                self.nodes = [*(other for other in self.nodes if other.ip != ip), node]
                return node
            node.kill()
        raise AssertionError(log.read_text())


def tables_in(folder: Path) -> dict[str, str]:
    """Return variables by which a GCS keeps its tables in files of a folder, and all wait long for a new one."""
    tables = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder)}
    return tables | {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}  # on a busy machine a head takes more than 60


@contextlib.contextmanager
def ray_nodes(head: int, *others: int, dashboard: bool = True, **variables: str) -> Iterator[RayNodes]:
    """Start a cluster for the duration of the block. head, others: CPUs of its nodes. variables: of all processes."""
    with tempfile.TemporaryDirectory(prefix="nodes-") as short:  # a path of pytest's is too long for Ray's sockets
        cluster = RayNodes(Path(short), dashboard=dashboard, variables=variables)
        try:
            cluster.begin(head)
            for cpus in others:
                cluster.join(cpus)
            yield cluster
        finally:
            for node in cluster.nodes[::-1]:
                node.kill()
