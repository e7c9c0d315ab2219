"""Runs the stages of one Run that are not done, each once; and the Ray that they run on."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import ray
import ray.data
from ray.exceptions import AuthenticationError

from selfsup import failures
from selfsup.errors import SelfsupError
from selfsup.pipelines.evaluate import embed, probe
from selfsup.pipelines.forkserver import forked_workers
from selfsup.pipelines.pictures import pictures
from selfsup.pipelines.pretrain import pretrain
from selfsup.planning import Planned
from selfsup.progress import timed

WORK = {"pretrain": pretrain, "pictures": pictures, "embed": embed}  # every other stage is a probe

ENVIRONMENT = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # until it sees that a run has ended; Ray's own is 2
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_maximum_startup_concurrency": "16",  # they are forked; Ray warns of four times as many as it expects
}


@contextmanager
def cluster() -> Iterator[None]:
    """The cluster of RAY_ADDRESS (set inside a submitted job), or an embedded Ray for as long as the block runs.

    Raises SelfsupError where no cluster is there.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with forked_workers(_start):
        try:
            yield
        finally:
            ray.shutdown()


def _start() -> None:
    ended = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
    with timed("Ray"):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, AuthenticationError) as error:
            raise SelfsupError(
                f"no Ray cluster answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}. Start one, with "
                "`ray start --head`; or unset RAY_ADDRESS, to run on an embedded one; or, where it wants a token, put "
                "that into RAY_AUTH_TOKEN."
            ) from error
    signal.signal(signal.SIGTERM, ended)
    quiet()


def quiet() -> None:
    """No progress bars of Ray's own; each process that plans data says so for itself."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def perform(each: Planned) -> None:
    """Bring a run to its end. What stops it is raised, and noted in `each.failure` until the next attempt."""
    each.failure.unlink(missing_ok=True)
    each.remember()
    try:
        each.check_unchanged()
        for stage in each.stages:
            with stage.held():
                if not stage.done:
                    stage.claim()
                    stage.finish(WORK.get(stage.kind, probe)(each, stage))
    except Exception as error:
        failures.write(failures.classify(error), each.failure)
        raise


@cache
def commit() -> str:
    """The git commit that runs, with a + where the tree differs from it; a submitted job is told it."""
    if told := os.environ.get("SELFSUP_COMMIT"):
        return told
    asked = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
