"""A fork server for the worker processes of a local Ray.

A run needs seven worker processes, and importing Ray, torch and timm costs each of them seconds of CPU. Here the
command by which Ray starts a worker asks a server, which has imported everything, for a fork. The first request starts
that server, which ends with its raylet. Any other program, and a worker whose runtime environment changes more than
variables, starts as usual.

The command runs this file as a script and must start fast, so it imports the standard library only.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

MODULES = (
    "ray.tune",
    "ray.train.torch",
    "selfsup.pipelines.stages.runner",
    "selfsup.pipelines.stages.worker",
    "pyarrow.parquet",
)
CONTEXT = "--serialized-runtime-env-context="
CLUSTER = "--gcs-address="
POLL_SECONDS = 1.0  # between checks that the raylet still lives


class WorkerRequest(NamedTuple):
    """A worker process that Ray starts. folder: its working directory."""

    argv: list[str]
    environment: dict[str, str]
    folder: str


@contextmanager
def forked_workers(folder: Path) -> Iterator[None]:
    """Make a Ray that starts inside the block fork its workers. folder: for the command and the server's socket."""
    python, command = sys.executable, folder / "python"
    call = shlex.join([python, "-SEP", __file__, "launch", str(folder / "socket"), python])
    command.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
    command.chmod(0o700)
    sys.executable = str(command)  # Ray starts its processes with it
    try:
        yield
    finally:
        sys.executable = python


def launch(path: Path, python: str, args: list[str]) -> None:
    """Run `python ARGS`: as a fork where it is a worker, else in place of this process.

    Sets RAY_ADDRESS, since Ray Train releases a stopped trial's resources through Ray's State API, which otherwise
    searches the machine for a cluster and fails where there are two.
    """
    for arg in args:
        if arg.startswith(CLUSTER):
            os.environ["RAY_ADDRESS"] = arg.removeprefix(CLUSTER)
    request = _worker_request(args, python)
    if not request or not _fork(request, path, python):
        os.execv(python, [python, *args])


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


def _fork(request: WorkerRequest, path: Path, python: str) -> bool:
    """Ask the server for a fork; return False where it refuses or has died."""
    message = json.dumps(request).encode()
    try:
        with _connect(path, python) as server:
            server.sendall(len(message).to_bytes(8, "big"))
            socket.send_fds(server, [message[:1]], [0, 1, 2])
            server.sendall(message[1:])
            return server.recv(1) == b"y"
    except OSError:
        return False


def _connect(path: Path, python: str) -> socket.socket:
    """Return a connection to the server, started if there is none."""
    server = socket.socket(socket.AF_UNIX)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            server.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            _start_server(path, python)
            server.connect(str(path))
    return server


def _start_server(path: Path, python: str) -> None:
    """Start the server; connections wait in its queue until its imports are done."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(256)
    listening.set_inheritable(True)
    raylet = os.getppid()
    if os.fork() == 0:
        os.setsid()
        os.execv(python, [python, "-P", __file__, "serve", str(listening.fileno()), str(raylet)])
    listening.close()


def serve(listening: socket.socket, raylet: int) -> None:
    """Fork a worker for every connection until the raylet is gone; then end, and its workers within seconds."""
    # Ray sets this per worker, but libraries read it at import; a stage with more CPUs sets torch's threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    _import_modules()
    can_fork = _can_fork()
    gc.collect()
    gc.freeze()
    workers: list[int] = []
    listening.settimeout(POLL_SECONDS)
    while True:
        workers = [worker for worker in workers if _is_running(worker)]
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            if not _exists(raylet):
                return _kill(workers)
            continue
        with connection:
            connection.settimeout(None)
            if not can_fork:
                connection.sendall(b"n")
            elif worker := os.fork():
                workers.append(worker)
            else:
                listening.close()
                _run_worker(connection)


def _is_running(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG) == (0, 0)


def _kill(workers: list[int]) -> None:
    """Kill workers that hang: the others end by themselves without a raylet."""
    time.sleep(POLL_SECONDS)
    for worker in filter(_is_running, workers):
        with suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _import_modules() -> None:
    """Import MODULES without drawing ids from Ray's generator, which actor classes do at their definition.

    Forks of a process that has drawn one would all draw the same ids.
    """
    actor: Any = importlib.import_module("ray.actor")
    id_class = actor.ActorClassID
    actor.ActorClassID = SimpleNamespace(from_random=lambda: id_class(os.urandom(id_class.size())))
    for module in MODULES:
        importlib.import_module(module)
    actor.ActorClassID = id_class


def _can_fork() -> bool:
    """Return whether two forks draw different object ids, so that no worker takes another's objects."""
    return _id_of_fork() != _id_of_fork()


def _id_of_fork() -> bytes:
    from ray import ObjectID

    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, ObjectID.from_random().binary())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        object_id = pipe.read()
    os.wait()
    return object_id


def _run_worker(connection: socket.socket) -> NoReturn:
    """Turn this fork into the requested worker."""
    os.setsid()  # Ray ends a worker together with its process group
    size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    first, files, _, _ = socket.recv_fds(connection, 1, 3)
    request = WorkerRequest(*json.loads(first + connection.recv(size - 1, socket.MSG_WAITALL)))
    connection.sendall(b"y")
    connection.close()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    _reseed_numpy()
    sys.argv = request.argv
    sys.path.insert(0, str(Path(request.argv[0]).parent))
    with suppress(SystemExit):
        runpy.run_path(request.argv[0], run_name="__main__")
    _exit()


def _exit() -> NoReturn:
    """End this process as Python does, but without exit handlers of C: one of Ray's can deadlock."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reseed_numpy() -> None:
    """Seed NumPy's global generator anew; Python reseeds its own after a fork."""
    numpy: Any = importlib.import_module("numpy")
    numpy.random.seed()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "launch":
        launch(Path(rest[0]), rest[1], rest[2:])
    else:
        serve(socket.socket(fileno=int(rest[0])), int(rest[1]))
