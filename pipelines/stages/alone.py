"""Training by one set of workers at a time.

Where a head is lost with the command on it, workers on other nodes train on until their node has missed its GCS for
too long. A command that goes on meanwhile would write into the same folder, so its own workers wait for them.
"""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from ray.train.torch import get_device

from selfsup.parts import dist
from selfsup.pipelines.cluster.slot import Job
from selfsup.pipelines.cluster.watchdog import gcs_timeout

LOCK = "training.lock"  # in the folder of a training: of its first worker
POLL = 0.5  # seconds between attempts
ENDING = 60.0  # seconds that a node and its workers may take to end
logger = logging.getLogger(__name__)


def alone(job: Job, folder: Path, rank: int, world: int) -> Any:
    """Return what a worker makes of a training in a folder, once no worker of an earlier command trains there."""
    with _locked(folder / LOCK) if rank == 0 else nullcontext():
        if world > 1:
            int(dist.first(torch.zeros((), device=get_device())))  # waits for the first worker
        return job(rank, world)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock inside the block, or none where another machine died with it: its workers have long ended, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + gcs_timeout() + ENDING
    with path.open("w") as lock:
        while not _acquired(lock.fileno()):
            if time.monotonic() > deadline:
                logger.warning("%s: locked, as by a machine that is gone; training goes on without it", path)
                break
            time.sleep(POLL)
        yield


def _acquired(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
