"""Durability of a training whose home is on object storage: what it leaves goes up while it goes on.

Training waits for storage at its start, for what it continues, and at its end; in between a thread of the first worker
publishes checkpoints and notes, those of them that are there when it comes round. A checkpoint that is slow to go up is
passed over for the next. `durable.json` says which step storage has. Ray Train's own asynchronous upload needs all
workers to report at once, and its restore the same version of Ray; this asks for neither.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfsup.homes import DURABLE, fetch, mirror_of, publish
from selfsup.mirror import Mirror
from selfsup.mirror_index import inputs
from selfsup.objects import StorageError
from selfsup.pipelines.cluster.slot import Job
from selfsup.stage import write_json

PACE = 5.0  # seconds between looks at what is new
logger = logging.getLogger(__name__)


def durably(job: Job, folder: Path, read: Sequence[Path], patience: float, rank: int, world: int) -> Any:
    """Return what a worker makes of a training in a folder, of which storage has everything then; or why it has not.

    read: folders of what it reads. patience: seconds to wait for storage that does not answer. An error of storage is
    raised only where other workers wait for this one: Ray Train would repeat the work, and the wait.
    """
    if (mirror := mirror_of(folder)) is None:
        return job(rank, world)
    try:
        fetch(read, inputs, patience=patience)
        fetch([folder], exact=world > 1, patience=patience)  # so that workers on several nodes find the same checkpoint
    except StorageError as error:
        if world > 1:
            raise
        return error
    try:
        with _publishing(mirror, folder, patience) if rank == 0 else _published(folder, patience):
            return job(rank, world)
    except StorageError as error:
        return error


@contextmanager
def _publishing(mirror: Mirror, folder: Path, patience: float) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(mirror, folder, ended), daemon=True)
    thread.start()
    try:
        with _published(folder, patience):
            try:
                yield
            finally:
                ended.set()
                thread.join()
        _note_durable(mirror, folder)
    except StorageError as error:
        raise StorageError(f"{error}; the last checkpoint there is of step {durable_step(mirror, folder)}") from error


@contextmanager
def _published(folder: Path, patience: float) -> Iterator[None]:
    """Publish a folder after the block, whether or not it fails."""
    try:
        yield
    except BaseException:
        with suppress(StorageError):
            publish(folder)
        raise
    publish(folder, patience=patience)


def _follow(mirror: Mirror, folder: Path, ended: threading.Event) -> None:
    while not ended.wait(PACE):
        try:
            mirror.publish(folder)
            _note_durable(mirror, folder)
        except StorageError as error:
            logger.warning("%s; training goes on, and it is tried again", error)


def _note_durable(mirror: Mirror, folder: Path) -> None:
    """Note the last step that storage has, and remove checkpoints from there that are removed here."""
    for path in _stored(mirror, folder):
        if not path.exists():
            mirror.remove(path)
    if steps := _durable_steps(mirror, folder):
        write_json(folder / DURABLE, {"step": max(steps)})
        mirror.publish(folder / DURABLE)


def _stored(mirror: Mirror, folder: Path) -> set[Path]:
    """Return the folders of checkpoints of which storage has anything: some may never have gone up whole."""
    prefix = f"{mirror.name(folder)}/"
    names = {info.name.removeprefix(prefix).partition("/")[0] for info in mirror.store.list(mirror.name(folder))}
    return {folder / name for name in names if name.startswith("checkpoint_")}


def durable_step(mirror: Mirror, folder: Path) -> int:
    """Return the step of the last checkpoint that storage has of this node's; 0 without one."""
    return max(_durable_steps(mirror, folder), default=0)


def _durable_steps(mirror: Mirror, folder: Path) -> list[int]:
    """Return the steps of the checkpoints that storage has whole."""
    names = (name.split("/") for name in mirror.published(folder) if name.endswith("/_digests.json"))
    checkpoints = [parts[-2] for parts in names if parts[-2].startswith("checkpoint_")]
    return [int(name.removeprefix("checkpoint_")) for name in checkpoints]
