"""Worker processes of an embedded Ray, forked from one process that has imported everything instead of started cold.

A run takes seven worker processes, and importing Ray, torch and timm costs each of them seconds of CPU. Here the
command by which Ray starts a worker asks a server for a fork; the first starts that server, which ends with its raylet.
Whatever is unusual, such as a runtime environment that changes more than variables, starts as if this were not here.

The command runs this file as a script, before any import can be paid for: the standard library only.
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
PATIENCE = 1.0  # seconds between looks at whether the raylet still lives


class Asked(NamedTuple):
    """A worker process that Ray wants."""

    argv: list[str]
    environment: dict[str, str]
    folder: str


@contextmanager
def forked_workers(folder: Path) -> Iterator[None]:
    """Start Ray inside the block: its workers are forked for as long as it lives and the folder is there."""
    cold, command = sys.executable, folder / "python"
    call = shlex.join([cold, "-SEP", __file__, "launch", str(folder / "socket"), cold])
    command.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
    command.chmod(0o700)
    sys.executable = str(command)  # with which Ray starts its processes
    try:
        yield
    finally:
        sys.executable = cold


def launch(path: Path, python: str, args: list[str]) -> None:
    """In place of `python ARGS`: fork it where it is a worker, and start it cold where not.

    It is told its cluster: Ray Train frees what a stopped trial held through Ray's State API, which otherwise looks for
    the one cluster on the machine, and with two of them finds none.
    """
    for arg in args:
        if arg.startswith(CLUSTER):
            os.environ["RAY_ADDRESS"] = arg.removeprefix(CLUSTER)
    asked = _worker(args, python)
    if not asked or not _forked(asked, path, python):
        os.execv(python, [python, *args])


def _worker(args: list[str], python: str) -> Asked | None:
    """None for any other program, and for a worker whose runtime environment is more than variables."""
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
    return Asked(args, environment, str(Path.cwd())) if args[0].endswith("default_worker.py") else None


def _forked(asked: Asked, path: Path, python: str) -> bool:
    """False where the server refuses, or has died."""
    message = json.dumps(asked).encode()
    try:
        with _connected(path, python) as server:
            server.sendall(len(message).to_bytes(8, "big"))
            socket.send_fds(server, [message[:1]], [0, 1, 2])
            server.sendall(message[1:])
            return server.recv(1) == b"y"
    except OSError:
        return False


def _connected(path: Path, python: str) -> socket.socket:
    """To the server; the first to come starts it."""
    server = socket.socket(socket.AF_UNIX)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            server.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            _start(path, python)
            server.connect(str(path))
    return server


def _start(path: Path, python: str) -> None:
    """Whoever connects from now on waits until the server has done its imports."""
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
    """Fork a worker for every connection, until the raylet is gone; no worker outlives it by more than seconds."""
    # What Ray would tell each worker by this variable is read at import; a stage that holds more CPUs says so to torch.
    os.environ["OMP_NUM_THREADS"] = "1"
    _import()
    sound = _sound()
    gc.collect()
    gc.freeze()
    workers: list[int] = []
    listening.settimeout(PATIENCE)
    while True:
        workers = [worker for worker in workers if _runs(worker)]
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            if not _alive(raylet):
                return _end(workers)
            continue
        with connection:
            connection.settimeout(None)
            if not sound:
                connection.sendall(b"n")
            elif worker := os.fork():
                workers.append(worker)
            else:
                listening.close()
                _become(connection)


def _runs(worker: int) -> bool:
    return os.waitpid(worker, os.WNOHANG) == (0, 0)


def _end(workers: list[int]) -> None:
    """Kill those that have not ended by themselves, for want of a raylet: they hang."""
    time.sleep(PATIENCE)
    for worker in filter(_runs, workers):
        with suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _import() -> None:
    """Ray numbers every actor class that a module defines with its own random numbers, which forks must not share."""
    actor: Any = importlib.import_module("ray.actor")
    numbers = actor.ActorClassID
    actor.ActorClassID = SimpleNamespace(from_random=lambda: numbers(os.urandom(numbers.size())))
    for module in MODULES:
        importlib.import_module(module)
    actor.ActorClassID = numbers


def _sound() -> bool:
    """Whether forks draw different ids, so that none takes another's objects; found out by forking twice.

    Forks of a process that has drawn even one would all go on with the same ones.
    """
    return _drawn() != _drawn()


def _drawn() -> bytes:
    from ray import ObjectID

    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, ObjectID.from_random().binary())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        drawn = pipe.read()
    os.wait()
    return drawn


def _become(connection: socket.socket) -> NoReturn:
    """Turn this fork into the worker that the connection asks for."""
    os.setsid()  # Ray ends a worker together with its process group
    size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    first, files, _, _ = socket.recv_fds(connection, 1, 3)
    asked = Asked(*json.loads(first + connection.recv(size - 1, socket.MSG_WAITALL)))
    connection.sendall(b"y")
    connection.close()
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.folder)
    _reseed()
    sys.argv = asked.argv
    sys.path.insert(0, str(Path(asked.argv[0]).parent))
    with suppress(SystemExit):
        runpy.run_path(asked.argv[0], run_name="__main__")
    _leave()


def _leave() -> NoReturn:
    """End this process as Python does, but without the exit handlers of C: in Ray's the process can wait for itself."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reseed() -> None:
    """Python does so itself after a fork, NumPy does not."""
    numpy: Any = importlib.import_module("numpy")
    numpy.random.seed()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "launch":
        launch(Path(rest[0]), rest[1], rest[2:])
    else:
        serve(socket.socket(fileno=int(rest[0])), int(rest[1]))
