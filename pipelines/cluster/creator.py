"""An actor that keeps the claims of a home, for storage that cannot write an object on condition that there is none.

It lives as long as its cluster, and serves all drivers of it, one request after another. A Ray of this machine alone
has none: drivers elsewhere would not ask it.
"""

import os
from pathlib import Path
from typing import Any

import ray

from selfsup.claim import can_create, creators
from selfsup.homes import mirror_of
from selfsup.objects import open_store
from selfsup.stage import digest


class Creator:
    """An actor that creates objects of a store."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none of its name; return whether that was so."""
        try:
            self._store.read(name)
            return False
        except FileNotFoundError:
            self._store.write(name, data)
            return True


def keep_claims(home: Path) -> None:
    """Let this process claim stages of a home by the actor of its cluster, where storage needs one."""
    mirror = mirror_of(home)
    if not mirror or mirror.url in creators or not os.environ.get("RAY_ADDRESS") or can_create(mirror.store):
        return
    options = {"name": f"selfsup-claims-{digest(mirror.url)}", "namespace": "selfsup", "lifetime": "detached"}
    lasting = {"max_restarts": -1, "max_task_retries": -1}  # on another node, where its own is lost
    actor: Any = ray.remote(Creator).options(num_cpus=0, get_if_exists=True, **options, **lasting).remote(mirror.url)
    creators[mirror.url] = lambda name, data: bool(ray.get(actor.create.remote(name, data)))
