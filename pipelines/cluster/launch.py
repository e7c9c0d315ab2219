"""The command by which a local Ray starts its Python processes: it makes its workers forks of our server.

Other programs, and workers whose runtime environment changes more than variables, start as usual, but for Ray's
dashboard, of which only what Ray Train asks is started.

Ray runs this file as a script, which must start fast, so it imports the standard library only.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple

CONTEXT = "--serialized-runtime-env-context="
CLUSTER = "--gcs-address="
STATE = "--modules-to-load=StateHead"  # of the ten processes of the dashboard, the one that Ray Train asks


class WorkerRequest(NamedTuple):
    """A worker process that Ray starts. folder: its working directory."""

    argv: list[str]
    environment: dict[str, str]
    folder: str


def launch(path: Path, python: str, args: list[str]) -> None:
    """Run `python ARGS`: as a fork where it is a worker, else in place of this process.

    Sets RAY_ADDRESS, since Ray Train releases a stopped trial's resources through Ray's State API, which otherwise
    searches the machine for a cluster and fails where there are two.
    """
    for arg in args:
        if arg.startswith(CLUSTER):
            os.environ["RAY_ADDRESS"] = arg.removeprefix(CLUSTER)
    request = _worker_request(args, python)
    if not request or not _fork(request, path):
        own = [STATE] if any(arg.endswith("dashboard/dashboard.py") for arg in args) else []
        os.execv(python, [python, *args, *own])


def _worker_request(args: list[str], python: str) -> WorkerRequest | None:
    """Parse Ray's command line; None for another program or a runtime environment of more than variables."""
    environment = dict(os.environ)
    if args[0].endswith("setup_worker.py"):
        context = json.loads(next((arg.removeprefix(CONTEXT) for arg in args if arg.startswith(CONTEXT)), "{}"))
        variables = context.pop("env_vars", {})
        if (
            context.pop("py_executable", python) != python
            or any(context.values())
            or "$" in "".join(variables.values())
        ):
            return None
        environment |= variables
        args = [arg for arg in args[1:] if not arg.startswith((CONTEXT, "--language="))]
    return WorkerRequest(args, environment, str(Path.cwd())) if args[0].endswith("default_worker.py") else None


def _fork(request: WorkerRequest, path: Path) -> bool:
    """Ask the server for a fork; return False where it refuses or has died."""
    message = json.dumps(request).encode()
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(path))
            server.sendall(len(message).to_bytes(8, "big"))
            socket.send_fds(server, [message[:1]], [0, 1, 2])
            server.sendall(message[1:])
            return server.recv(1) == b"y"
    except OSError:
        return False


if __name__ == "__main__":
    launch(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
