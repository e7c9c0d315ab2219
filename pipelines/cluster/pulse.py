"""Whether the Ray that a command is connected to lives. Where it has died, Ray would end the process after a while, up
to a minute, with a page of its logs; here that is one line.
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

EVERY = 1.0  # seconds between looks
SOON, LATE = 2.0, 50.0  # seconds; Ray ends this process 60 after its GCS was last seen


class Part(NamedTuple):
    """What must listen. patience: seconds for which it may not, since another may take its place."""

    host: str
    port: int
    patience: float


@contextmanager
def watched(*, replaced: bool) -> Iterator[None]:
    """Inside the block, end this process soon after a part of Ray has died. replaced: a new GCS may come for it."""
    over = threading.Event()
    threading.Thread(target=watch, args=(_parts(LATE if replaced else SOON), over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def watch(parts: Mapping[str, Part], over: threading.Event) -> None:
    seen = dict.fromkeys(parts, monotonic())
    while not over.wait(EVERY):
        for name, part in parts.items():
            if _listens(part):
                seen[name] = monotonic()
            elif monotonic() - seen[name] > part.patience and ray.is_initialized():  # not left on purpose
                _end(name)


def _listens(part: Part) -> bool:
    """Whoever else cannot be reached may only be slow."""
    try:
        socket.create_connection((part.host, part.port), timeout=5.0).close()
    except ConnectionError:
        return False
    except OSError:
        return True
    return True


def _end(name: str) -> NoReturn:
    """At once: whatever is asked of Ray now waits, and with it the main thread."""
    say(f"selfsup: {name} of Ray has died (killed, or out of memory); the same command continues")
    sys.stderr.flush()
    os._exit(1)


def _parts(patience: float) -> dict[str, Part]:
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    here = next(node for node in nodes if node["NodeID"] == context.get_node_id())
    return {
        "the GCS": Part(host.strip("[]"), int(port), patience),
        "the raylet": Part(here["NodeManagerAddress"], here["NodeManagerPort"], SOON),
    }
