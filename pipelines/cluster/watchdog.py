"""A watchdog over the Ray that a command is connected to.

Where a process of Ray has died, Ray itself would end the command only after up to a minute, with a page of its logs;
the watchdog does so at once with one line.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple, NoReturn

import ray

from selfsup.progress import say

INTERVAL = 1.0  # seconds between checks
LOCAL_GRACE, MARGIN = 2.0, 10.0  # seconds: of silence, and before Ray ends this process itself
GCS_TIMEOUT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # a variable of Ray


class Endpoint(NamedTuple):
    """The address at which a process of Ray must listen. grace: seconds of silence after which it counts as dead."""

    host: str
    port: int
    grace: float


@contextmanager
def watchdog(*, gcs_may_restart: bool) -> Iterator[None]:
    """Inside the block, end this process soon after a process of Ray has died."""
    stop = threading.Event()
    endpoints = _endpoints(max(LOCAL_GRACE, gcs_timeout() - MARGIN) if gcs_may_restart else LOCAL_GRACE)
    threading.Thread(target=watch, args=(endpoints, stop), daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def gcs_timeout() -> float:
    """Return the seconds after which processes of Ray end that have missed their GCS for so long."""
    return float(os.environ.get(GCS_TIMEOUT) or 60.0)


def watch(endpoints: Mapping[str, Endpoint], stop: threading.Event) -> None:
    """Check endpoints until `stop` is set; end this process where one is silent for longer than its grace."""
    last_seen = dict.fromkeys(endpoints, monotonic())
    while not stop.wait(INTERVAL):
        for name, endpoint in endpoints.items():
            if _listens(endpoint):
                last_seen[name] = monotonic()
            elif monotonic() - last_seen[name] > endpoint.grace and ray.is_initialized():  # not left on purpose
                _end(name)


def _listens(endpoint: Endpoint) -> bool:
    """Return False for a refused connection; any other error may be a slow machine."""
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=5.0).close()
    except ConnectionError:
        return False
    except OSError:
        return True
    return True


def _end(name: str) -> NoReturn:
    """End this process without cleanup: any call of Ray would block now, and the main thread may be in one."""
    say(f"selfsup: {name} of Ray has died (killed, or out of memory); the same command continues")
    sys.stderr.flush()
    os._exit(1)


def _endpoints(gcs_grace: float) -> dict[str, Endpoint]:
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    node = next(node for node in nodes if node["NodeID"] == context.get_node_id())
    return {
        "the GCS": Endpoint(host.strip("[]"), int(port), gcs_grace),
        "the raylet": Endpoint(node["NodeManagerAddress"], node["NodeManagerPort"], LOCAL_GRACE),
    }
