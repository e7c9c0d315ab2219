"""Stages: pieces of work with a folder and a result, found again from any spec that needs them.

The key of a stage covers everything that its result depends on and nothing else. Knobs at their defaults are left out
of it; all resolved settings lie beside the result and are compared, so that a default that changed in the code is
noticed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from selfsup.claim import claimed, is_claimed
from selfsup.errors import CheckpointError, SpecError
from selfsup.homes import fetch, forget, is_published
from selfsup.mirror_index import LOCK, is_busy, notes
from selfsup.naming import STAGES
from selfsup.settings import changed
from selfsup.whole import sweep, write

Settings = Mapping[str, Any]
ARTIFACTS = ("*.png", "bad-*.txt", "images.json")  # files stored in MLflow


def digest(value: Any, size: int = 6) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


@dataclass(frozen=True)
class Stage:
    """A piece of work with a result.

    identity: the settings that its key is a digest of. resolved: all settings, stored beside the result. entries: the
    modules that compute it. after: the stages that it depends on. name: of an evaluation in the spec, or of the one
    whose own data it embeds; the same work under two names is done once.
    """

    kind: str
    identity: Settings
    resolved: Settings
    home: Path
    entries: tuple[str, ...] = ()
    after: tuple["Stage", ...] = ()
    name: str = ""

    @cached_property
    def key(self) -> str:
        return f"{self.kind}-{digest(self.identity)}"

    @cached_property
    def folder(self) -> Path:
        return self.home / "stages" / self.key

    @property
    def spool(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def settings(self) -> dict[str, Any]:
        """Return `resolved` as it is stored, in the types of JSON."""
        return dict(json.loads(json.dumps(self.resolved)))

    @property
    def begun(self) -> bool:
        return (self.folder / "stage.json").exists()

    @property
    def done(self) -> bool:
        return self.made and is_published(self.folder / "done.json")

    @property
    def made(self) -> bool:
        """Return whether this node has its result, which storage may still lack."""
        return (self.folder / "done.json").exists()

    @property
    def space(self) -> str:
        """Return the prefix of the names of its metrics."""
        if self.kind in STAGES:
            return f"{self.kind}/{self.name}" if self.name else self.kind
        return f"eval/{self.name or self.kind}"

    def result(self) -> dict[str, float]:
        return dict(self._record()["result"])

    @property
    def time(self) -> int:
        """Return the time at which it was finished, in milliseconds since 1970."""
        return int(self._record()["time"])

    def artifacts(self) -> list[Path]:
        return sorted(path for name in ARTIFACTS for path in self.folder.glob(name))

    def claim(self) -> None:
        """Make the folder and write the settings, or continue an earlier attempt with the same settings.

        Raises SpecError where the folder was made under other defaults.
        """
        note, now = self.folder / "stage.json", self.settings
        if note.exists() and (defaults := changed(now, read_json(note))):
            raise SpecError(
                f"{self.folder}: a default has changed since this was begun (there):\n  "
                + "\n  ".join(defaults)
                + "\nWrite the old value into the spec to continue, or remove the folder to start anew"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        write_json(note, now)

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the stage inside the block: a second run that needs it waits, then finds it done.

        Yields a function that raises StorageError where the stage was lost, as to another node when this one slept.
        """
        with locked(self.folder), claimed(self.folder) as check:
            fetch([self.folder], notes)
            yield check

    @property
    def running(self) -> bool:
        """Return whether a process works on it now."""
        return is_locked(self.folder)

    def finish(self, result: Mapping[str, float]) -> None:
        record = {"result": dict(result), "time": time.time_ns() // 1_000_000}
        write_json(self.folder / "done.json", record | {"digest": digest(record)})

    def _record(self) -> dict[str, Any]:
        return read_done(self.folder / "done.json")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a stage's folder inside the block, once no other process does. The folder is made if missing."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / LOCK).open("w")
        except FileNotFoundError:  # removed in between
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_at(lock, folder / LOCK):  # not in a folder that was removed while this process waited
                yield
                return


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a stage's folder now, or one on another node its claim."""
    return is_busy(folder) or is_claimed(folder)


def remove(folder: Path, *, unless: Callable[[], bool] = lambda: False) -> bool:
    """Remove the folder of a stage; return whether it is gone.

    It stays while another process holds it, and where `unless`, called with the lock held, says so.
    """
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(lock, folder / LOCK) and not is_claimed(folder) and not unless():
                forget(folder)
                shutil.rmtree(folder)
    except (FileNotFoundError, BlockingIOError):
        pass
    return not folder.exists()


def is_at(file: IO[str], path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def failure(home: Path, run_id: str) -> Path:
    """Return the path of the file that says why the latest attempt at a run failed."""
    return record(home, run_id).with_suffix(".failure")


def record(home: Path, run_id: str) -> Path:
    """Return the path of the file that holds the settings of a run and the keys of its stages."""
    return home / "runs" / f"{run_id}.json"


def read_done(path: Path) -> dict[str, Any]:
    """Read result and time from a done.json of `finish`. Raises CheckpointError where it is damaged."""
    record = read_json(path, result=dict, time=int)
    is_valid = all(isinstance(value, (int, float)) for value in record["result"].values())
    if not is_valid or record.pop("digest", None) not in (None, digest(record)):  # older versions wrote no digest
        raise damaged(path)
    return record


def read_json(path: Path, **kinds: Any) -> dict[str, Any]:
    """Read a file of `write_json`. kinds: required keys and their types. Raises CheckpointError for other content."""
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and all(isinstance(content[name], kinds[name]) for name in kinds):
            return content
    except (ValueError, KeyError, RecursionError, FileNotFoundError, IsADirectoryError):
        pass
    raise damaged(path)


def damaged(path: Path) -> CheckpointError:
    if not path.exists():
        return CheckpointError(f"{path}: missing; remove {path.parent} and run the spec again: it is made anew")
    return CheckpointError(f"{path}: damaged; remove it and run the spec again: what is missing is made anew")


def write_json(path: Path, value: Any) -> None:
    """Write a file atomically."""
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
