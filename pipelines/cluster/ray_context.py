"""The connection to Ray: the cluster at RAY_ADDRESS, or a local Ray that only this process can reach."""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import ray
import ray.data
from ray._private import grpc_utils, parameter, ray_constants, services, worker
from ray.exceptions import AuthenticationError

from selfsup.errors import SelfsupError
from selfsup.folders import node_cache_folder
from selfsup.mlflow_store import home
from selfsup.pipelines.cluster.auth import ensure_token
from selfsup.pipelines.cluster.forkserver import fork_server
from selfsup.pipelines.cluster.nodes import check_shared_folder
from selfsup.pipelines.cluster.watchdog import watchdog
from selfsup.progress import timed
from selfsup.scratch import scratch

CONNECT_TIMEOUT = 5.0  # seconds in which a cluster answers
SOCKET = "ray/session_2026-01-31_23-59-59_999999_4194304/sockets/dash_MetricsHead"  # the longest of Ray's
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes
ENVIRONMENT = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # until the end of a run is noticed; Ray's default is 2
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_COLOR_PREFIX": "0",  # Ray colors its nodes' warnings, in files too
    "RAY_worker_maximum_startup_concurrency": "16",  # forks are cheap; Ray warns of four times as many as it expects
}
LOCAL = {"RAY_worker_niceness": "0"}  # the machine is the user's, who may set it; by Ray's 15 every other process wins
TRACKING = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}  # for the Train page of a cluster's dashboard; takes an actor


@contextmanager
def ray_context() -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS, or to a local Ray, for the duration of the block.

    Raises SelfsupError where there is none, or where its nodes do not share SELFSUP_HOME.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    wanted = ENVIRONMENT | (LOCAL if address == "local" else TRACKING)
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(unset)
    if address == "local":
        with local_ray():
            yield
    else:
        with existing_ray(address, unset):
            check_shared_folder(home())
            yield


@contextmanager
def local_ray(**options: Any) -> Iterator[None]:
    """Start a Ray on the loopback interface for the duration of the block; its logs stay until the next one starts.

    options: for ray.init. Raises SelfsupError where it does not start.
    """
    ensure_token()
    os.environ["SELFSUP_CACHE"] = str(node_cache_folder())  # fixed, since TMPDIR changes for this Ray
    with scratch(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), "ray-", keep=True) as folder:
        _check_length(folder)
        with fork_server(folder) as forking, _shutdown_at_end():
            _start(folder, forking, options)
            with watchdog(gcs_may_restart=False):
                yield


@contextmanager
def existing_ray(address: str, variables: Mapping[str, str] | None = None) -> Iterator[None]:
    """Connect to a cluster, on one of whose nodes this process runs. Raises SelfsupError where none answers.

    variables: for the processes of this job, which do not inherit this one's; none of those that the job was sent.
    """
    with _shutdown_at_end():
        _connect(address, variables or {})
        with watchdog(gcs_may_restart=True):
            yield


def disable_progress_bars() -> None:
    """Turn off the progress bars of Ray Data, a setting of each process that plans data."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def logs_folder() -> str:
    """Return the folder of Ray's logs on this node."""
    node: Any = worker._global_node
    return str(node.get_logs_dir_path())


@contextmanager
def _shutdown_at_end() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


def _start(folder: Path, forking: AbstractContextManager[None], options: Mapping[str, Any]) -> None:
    temp_dir = folder / "ray"  # Ray makes it readable for everybody; only its parent is private
    try:
        with forking, _loopback_only(), _without_monitors(), _temporary_files_in(folder):
            _init("local", _temp_dir=str(temp_dir), **options)
    except Exception as error:
        logs = temp_dir / "session_latest" / "logs"
        raise SelfsupError(
            f"Ray did not start on this machine: {_first_line(error)}. The same command tries again; its logs: {logs}"
        ) from error


def _connect(address: str, variables: Mapping[str, str]) -> None:
    try:
        check_reachable(address)
        _init(address, runtime_env={"env_vars": dict(variables)})
    except (OSError, AuthenticationError, RuntimeError, ValueError) as error:
        raise SelfsupError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {_first_line(error)}. Start one, with `ray start "
            "--head`; or unset RAY_ADDRESS, to run on a local Ray; or, if it wants a token, set RAY_AUTH_TOKEN."
        ) from error


def check_reachable(address: str) -> None:
    """Raise OSError or ValueError within seconds where no cluster answers; Ray itself would wait for minutes."""
    if address.startswith("ray://"):
        raise ValueError("Ray Client loses the process that follows the runs: submit them, by `selfsup submit`")
    bootstrap = services.canonicalize_bootstrap_address(address) or address
    host, _, port = bootstrap.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()
    with grpc_utils.init_grpc_channel(bootstrap) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_TIMEOUT)
        except grpc.FutureTimeoutError as error:
            raise OSError("the process that listens there is not Ray") from error


def _init(address: str, **options: Any) -> None:
    handler = signal.getsignal(signal.SIGTERM)  # ray.init replaces it
    with timed("Ray started"):
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    signal.signal(signal.SIGTERM, handler)
    disable_progress_bars()


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make a Ray that starts inside the block listen on 127.0.0.1 alone.

    Ray does so where it expects no other nodes; an address of 127.0.0.1 it would replace by the machine's own.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _without_monitors() -> Iterator[None]:
    """Start a Ray inside the block without autoscaler and log monitor, which ray.init has no option for."""
    module: Any = parameter
    before = module.RayParams
    module.RayParams = partial(before, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        module.RayParams = before


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Set TMPDIR for processes that start inside the block, so that their files are removed even if they are killed."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


def _check_length(folder: Path) -> None:
    if (length := len(os.fsencode(folder / SOCKET))) > MAX_SOCKET_PATH:
        raise SelfsupError(
            f"{folder.parent}: too long a path for the sockets of Ray, by {length - MAX_SOCKET_PATH} characters; set "
            "TMPDIR, or RAY_TMPDIR, to a shorter one, such as /tmp"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".:")
