"""Claims on stages of a home on object storage: of two drivers on any machines that want a stage, one waits.

A claim is an object that is created only where there is none of its number, an atomic operation of storage: the latest
number holds the stage. Its owner renews it; one that is released, that has not changed for a while, or whose process on
this node is dead, is over, and whoever creates the next number holds the stage. An owner that slept meanwhile finds the
next number, and its result does not count: it publishes nothing any more.
"""

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from selfsup.apart import apart
from selfsup.homes import mirror_of
from selfsup.mirror import Mirror
from selfsup.objects import ObjectInfo, ObjectStore, StorageError

LEASE = 60.0  # seconds without a sign of its owner after which a claim is over
POLL = 1.0  # seconds between looks at another's claim
CLAIMS, PROBE = "claims", "claims/probe"

logger = logging.getLogger(__name__)
creators: dict[str, Callable[[str, bytes], bool]] = {}  # URL of a home whose storage cannot create -> who can


class StageClaim:
    """A claim on a folder of a home, held by this process, which renews it. The folder's lock is held, too."""

    def __init__(self, mirror: Mirror, folder: Path) -> None:
        self._mirror, self._folder = mirror, f"{CLAIMS}/{mirror.name(folder)}"
        self._owner = {"node": mirror.node, "process": os.getpid()}
        self._number, self._beats = 0, 0
        self._ended, self._is_lost = threading.Event(), False
        self._thread = threading.Thread(target=self._keep, name="selfsup-claim", daemon=True)

    def acquire(self) -> None:
        """Wait until the folder is this process's alone. Raises StorageError."""
        seen: dict[str, float] = {}
        create = creator(self._mirror)
        while True:
            latest = _latest(self._mirror.store, self._folder)
            if latest is None or self._is_over(latest, seen):
                self._number = 1 + (int(latest.name.rpartition("/")[2]) if latest else 0)
                if create(self._name, self._content()) and self._is_latest():
                    break
            else:
                time.sleep(POLL)
        older = (info.name for info in self._mirror.store.list(self._folder) if info.name < self._name)
        self._mirror.store.remove([*older])
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(LEASE / 4):
            with suppress(StorageError):
                self._renew()
                if self._is_lost:
                    return

    def check(self) -> None:
        """Raise StorageError where another process took the folder over, since this one gave no sign for too long."""
        self._renew()
        if self._is_lost:
            raise StorageError(f"{self._folder}: this process gave no sign for too long, and another one does its work")

    def release(self) -> None:
        """Let others have the folder."""
        self._ended.set()
        self._thread.join()
        if not self._is_lost:
            self._mirror.store.write(self._name, self._content(released=True))

    @property
    def _name(self) -> str:
        return f"{self._folder}/{self._number:09d}"

    def _is_latest(self) -> bool:
        """Return whether the claim made just now holds; one that came too late is withdrawn."""
        latest = _latest(self._mirror.store, self._folder)
        if latest and latest.name > self._name:
            self._mirror.store.remove([self._name])
            return False
        return True

    def _renew(self) -> None:
        latest = _latest(self._mirror.store, self._folder)
        self._is_lost = latest is not None and latest.name > self._name
        if not self._is_lost:
            self._beats += 1
            self._mirror.store.write(self._name, self._content())

    def _content(self, *, released: bool = False) -> bytes:
        return json.dumps({**self._owner, "beats": self._beats, "released": released}).encode()

    def _is_over(self, latest: ObjectInfo, seen: dict[str, float]) -> bool:
        """Return whether a claim does not hold any more. seen: when each state of it was seen first."""
        owner = _read(self._mirror.store, latest)
        is_free = owner.get("released") or owner.get("node") == self._mirror.node
        if not seen and not is_free:
            logger.warning("%s: %s works on it; waiting for it", self._folder, owner)
        since = seen.setdefault(f"{latest.name} {latest.tag}", time.monotonic())
        is_old = time.monotonic() > since + LEASE or time.time() > (latest.time or time.time()) + 10 * LEASE
        return bool(is_free) or is_old


@contextmanager
def claimed(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the claim on a folder inside the block; yield a function that raises where it was lost.

    Call it with the folder's lock held. A folder of a local home needs none.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield lambda: None
        return
    claim = StageClaim(mirror, folder)
    claim.acquire()
    try:
        yield claim.check
    finally:
        with suppress(StorageError):  # it will expire
            claim.release()


def is_claimed(folder: Path) -> bool:
    """Return whether a process on another node holds a claim on a folder, as far as clocks can tell."""
    mirror = mirror_of(folder)
    return mirror is not None and apart(partial(_is_held, mirror, folder))


def _is_held(mirror: Mirror, folder: Path) -> bool:
    latest = _latest(mirror.store, f"{CLAIMS}/{mirror.name(folder)}")
    if latest is None or time.time() > (latest.time or time.time()) + LEASE:
        return False
    owner = _read(mirror.store, latest)
    return not owner.get("released") and owner.get("node") != mirror.node


def creator(mirror: Mirror) -> Callable[[str, bytes], bool]:
    """Return the function that creates objects of a home where there are none, by storage or by one that can.

    Raises StorageError where neither can: then two drivers could do the same work.
    """
    if mirror.url in creators:
        return creators[mirror.url]
    if not can_create(mirror.store):
        raise StorageError(
            f"{mirror.url}: this storage cannot write an object on condition that there is none (If-None-Match), by "
            "which drivers claim their work; run on a Ray cluster, by RAY_ADDRESS, which then keeps the claims"
        )
    creators[mirror.url] = mirror.store.create
    return mirror.store.create


def can_create(store: ObjectStore) -> bool:
    """Return whether storage refuses to create what is there."""
    store.create(PROBE, b"there")
    return not store.create(PROBE, secrets.token_bytes(8))


def _latest(store: ObjectStore, folder: str) -> ObjectInfo | None:
    return max(store.list(folder), key=lambda info: info.name, default=None)


def _read(store: ObjectStore, info: ObjectInfo) -> dict[str, object]:
    """Return what a claim says; nothing where it is gone or damaged."""
    with suppress(FileNotFoundError, ValueError):
        content = json.loads(store.read(info.name))
        return content if isinstance(content, dict) else {}
    return {}
