"""The Ray that runs go to: the cluster of RAY_ADDRESS, or one of this process alone, which nobody else can reach."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import ray
import ray.data
from ray._private import grpc_utils, ray_constants, services, worker
from ray.exceptions import AuthenticationError

from selfsup.errors import SelfsupError
from selfsup.mlflow_store import home
from selfsup.pipelines.cluster.auth import own_token
from selfsup.pipelines.cluster.forkserver import forked_workers
from selfsup.pipelines.cluster.nodes import check_shared
from selfsup.pipelines.cluster.pulse import watched
from selfsup.pipelines.data.cache import node_folder
from selfsup.progress import timed
from selfsup.scratch import scratch

REACH = 5.0  # seconds in which a cluster answers
SOCKET = "ray/session_2026-01-31_23-59-59_999999_4194304/sockets/dash_MetricsHead"  # the longest of Ray's
LONGEST = 103 if sys.platform == "darwin" else 107  # bytes of a socket's path
ENVIRONMENT = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # until it sees that a run has ended; Ray's own is 2
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_maximum_startup_concurrency": "16",  # they are forked; Ray warns of four times as many as it expects
}


@contextmanager
def cluster() -> Iterator[None]:
    """Connected to a Ray for as long as the block runs. Raises SelfsupError where there is none."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        with embedded():
            yield
    else:
        with joined(address):
            check_shared(home())
            yield


@contextmanager
def embedded(**options: Any) -> Iterator[None]:
    """A Ray of this process, on loopback only, that ends with it; its logs stay until the next one starts.

    Raises SelfsupError where it does not start.
    """
    own_token()
    os.environ["SELFSUP_CACHE"] = str(node_folder())  # the rest of its temporary files are for this Ray alone
    with scratch(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), "ray-", keep=True) as folder:
        _check_length(folder)
        with _connection():
            _start(folder, options)
            with watched(replaced=False):
                yield


@contextmanager
def joined(address: str) -> Iterator[None]:
    """A cluster, on one of whose nodes this process runs. Raises SelfsupError where it does not answer."""
    with _connection():
        _join(address)
        with watched(replaced=True):
            yield


def quiet() -> None:
    """No progress bars of Ray's own; each process that plans data says so for itself."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def logs() -> str:
    """Where Ray keeps those of this node."""
    node: Any = worker._global_node
    return str(node.get_logs_dir_path())


@contextmanager
def _connection() -> Iterator[None]:
    """Whatever is connected to in the block is left at its end."""
    try:
        yield
    finally:
        ray.shutdown()


def _start(folder: Path, options: Mapping[str, Any]) -> None:
    place = folder / "ray"  # which Ray opens to all; only the folder around it is its owner's alone
    try:
        with forked_workers(folder), _loopback(), _temporary(folder):
            _init("local", _temp_dir=str(place), **options)
    except Exception as error:
        logs = place / "session_latest" / "logs"
        raise SelfsupError(
            f"Ray did not start on this machine: {_first(error)}. The same command tries again; its logs: {logs}"
        ) from error


def _join(address: str) -> None:
    try:
        reach(address)
        _init(address)
    except (OSError, AuthenticationError, RuntimeError, ValueError) as error:
        raise SelfsupError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {_first(error)}. Start one, with `ray start --head`; or "
            "unset RAY_ADDRESS, to run on an embedded one; or, where it wants a token, put that into RAY_AUTH_TOKEN."
        ) from error


def reach(address: str) -> None:
    """Raises OSError or ValueError within seconds where no cluster answers, for which Ray itself waits minutes."""
    if address.startswith("ray://"):
        raise ValueError("not through Ray Client, which loses what follows the runs: submit them, by `selfsup submit`")
    place = services.canonicalize_bootstrap_address(address) or address
    host, _, port = place.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACH).close()
    with grpc_utils.init_grpc_channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(REACH)
        except grpc.FutureTimeoutError as error:
            raise OSError("what listens there is no Ray") from error


def _init(address: str, **options: Any) -> None:
    handler = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
    with timed("Ray"):
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    signal.signal(signal.SIGTERM, handler)
    quiet()


@contextmanager
def _loopback() -> Iterator[None]:
    """What starts inside the block listens on 127.0.0.1 alone. Ray does so where it expects no other machines, and
    takes no such address by name: it puts the machine's own in its place.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """What starts inside the block keeps its temporary files there, where they are found if it is killed."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


def _check_length(folder: Path) -> None:
    if (length := len(os.fsencode(folder / SOCKET))) > LONGEST:
        raise SelfsupError(
            f"{folder.parent}: too long a path for the sockets of Ray, by {length - LONGEST} characters; point TMPDIR, "
            "or RAY_TMPDIR, to a shorter one, such as /tmp"
        )


def _first(error: BaseException) -> str:
    """Its first line, as the beginning of a sentence."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".:")
