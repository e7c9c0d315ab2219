"""A fork server for the worker processes of a local Ray.

A run needs seven worker processes, and importing Ray, torch and timm costs each of them seconds of CPU and half a
gigabyte. Here the command by which Ray starts a worker, `launch`, asks a server, which has imported everything, for a
fork. That server is itself a fork of the process that starts Ray, where this has imported everything by
`import_modules`; any other process starts it anew, by this file. It ends with the block, or with the process, that
started it.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from selfsup.leave import leave
from selfsup.pipelines.cluster import launch
from selfsup.pipelines.cluster.auth import use_token
from selfsup.pipelines.cluster.launch import WorkerRequest

MODULES = (
    "ray.tune",
    "ray.train.torch",
    "selfsup.pipelines.stages.runner",
    "selfsup.pipelines.stages.worker",
    "pyarrow.parquet",
)
THREADS, NO_JOB = "OMP_NUM_THREADS", "ffffffff"
POLL_SECONDS = 1.0  # between looks for workers that have ended
_imported = False  # whether this process has imported all by `import_modules`


def import_modules() -> None:
    """Import everything that workers need, such that they can be forks of this process if it has not imported Ray yet.

    That is, without drawing ids from Ray's generator, as actor classes do at their definition, since forks of a process
    that has drawn one all draw the same ids; without threads for linear algebra, which forks would lack; and with what
    Ray's raylet says to workers when they start: no job, which their tasks name, and a process that they end with.
    """
    global _imported
    _imported = "ray" not in sys.modules and (os.environ.get(THREADS) == "1" or "numpy" not in sys.modules)
    use_token()
    # a stage with more CPUs sets torch's threads
    with _variables({THREADS: "1", "RAY_JOB_ID": NO_JOB, "RAY_RAYLET_PID": str(os.getpid())}):
        actor: Any = importlib.import_module("ray.actor")
        id_class = actor.ActorClassID
        actor.ActorClassID = SimpleNamespace(from_random=lambda: id_class(os.urandom(id_class.size())))
        for module in MODULES:
            importlib.import_module(module)
        actor.ActorClassID = id_class


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the duration of the block, in which libraries are imported that read them at import only."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def fork_server(folder: Path) -> Iterator[AbstractContextManager[None]]:
    """Run a server for the duration of the block; yield a context in which a Ray is started whose workers it forks.

    folder: for the server's socket, its log and the command.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(256)  # connections wait until its imports are done
        reading, writing = os.pipe()
        server = _begin(listening, reading)
        os.close(reading)
    try:
        yield _workers_forked_by(folder)
    finally:
        os.close(writing)
        gc.unfreeze()
        threading.Thread(target=os.waitpid, args=(server, 0), daemon=True).start()


@contextmanager
def _workers_forked_by(folder: Path) -> Iterator[None]:
    """Make Ray start its processes by our command inside the block."""
    python, command = sys.executable, folder / "python"
    call = shlex.join([python, "-SEP", launch.__file__, str(folder / "socket"), python])
    command.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
    command.chmod(0o700)
    sys.executable = str(command)
    try:
        yield
    finally:
        sys.executable = python


def _begin(listening: socket.socket, parent: int) -> int:
    """Start the server, as a fork of this process if it may be; return its number. parent: a pipe from this one."""
    has_threads = threading.active_count() > 1 or "obstore" in sys.modules  # which has some that Python does not see
    if not _imported or has_threads:
        for file in (listening.fileno(), parent):
            os.set_inheritable(file, True)
        argv = [sys.executable, "-P", __file__, str(listening.fileno()), str(parent)]
        environment = os.environ | {"TMPDIR": str(Path(listening.getsockname()).parent)}
        return os.posix_spawn(sys.executable, argv, environment)
    _freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    if process := os.fork():
        return process
    try:
        _forget(listening.fileno(), parent)
        serve(listening, parent)
    finally:
        os._exit(0)


def _forget(*kept: int) -> None:
    """Leave this fork without what is its parent's: handlers of exit, signals and lost errors, files but for `kept`."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = sys.__unraisablehook__
    atexit._clear()
    atexit.register(importlib.import_module("ray").shutdown, True)  # as Ray does
    nowhere = os.open(os.devnull, os.O_RDWR)
    for file in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        if file not in (0, 1, 2, nowhere, *kept):
            with suppress(OSError):  # the listing's own
                os.fstat(file)
                os.dup2(nowhere, file, inheritable=False)  # not closed: some object may close it once more


def _freeze() -> None:
    """Keep the garbage collector from writing to what there is: forks share it."""
    gc.collect()
    gc.freeze()


def serve(listening: socket.socket, parent: int) -> None:
    """Fork a worker for every connection until the pipe from `parent` is closed; then end, and its workers soon."""
    os.setsid()
    _write_to(Path(listening.getsockname()).with_name("forkserver.log"))
    can_fork, requests = _can_fork(), listening.fileno()
    workers: list[int] = []
    while True:
        ready, _, _ = select.select([requests, parent], [], [], POLL_SECONDS)
        workers = [worker for worker in workers if _is_running(worker)]
        if parent in ready:
            return _end(workers)
        if requests not in ready:
            continue
        connection, _ = listening.accept()
        with connection:
            if not can_fork:
                connection.sendall(b"n")
            elif worker := os.fork():
                workers.append(worker)
            else:
                listening.close()
                os.close(parent)
                _run_worker(connection)


def _write_to(log: Path) -> None:
    """Let a file take what this process and its libraries print."""
    with Path(os.devnull).open() as nothing, log.open("w") as file:
        for standard, other in enumerate((nothing, file, file)):
            os.dup2(other.fileno(), standard)


def _is_running(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG) == (0, 0)


def _end(workers: list[int]) -> None:
    """Wait for workers, which end by themselves without a raylet, and kill those that hang."""
    deadline = time.monotonic() + POLL_SECONDS
    while workers and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = [worker for worker in workers if _is_running(worker)]
    for worker in workers:
        with suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)


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
    _read_environment()
    _reseed_numpy()
    sys.argv = request.argv
    sys.path.insert(0, str(Path(request.argv[0]).parent))
    with suppress(SystemExit):
        runpy.run_path(request.argv[0], run_name="__main__")
    leave()


def _read_environment() -> None:
    """Let what reads the environment once read it anew: Ray, where it is, and Python, the folder of temporary files."""
    tempfile.tempdir = None
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")


def _reseed_numpy() -> None:
    """Seed NumPy's global generator anew; Python reseeds its own after a fork."""
    numpy: Any = importlib.import_module("numpy")
    numpy.random.seed()


if __name__ == "__main__":
    import_modules()
    _freeze()
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
