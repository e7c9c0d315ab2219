"""A piece of work with a folder and a result of its own.

It is keyed by everything that its result depends on and by nothing else, so a finished one is found again from any spec
that needs it. Knobs at their defaults are left out of a key; the resolved dump lies beside the result and is compared,
so a default that changed in the code is noticed instead of mixed in.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selfsup.checkpoint import differences
from selfsup.errors import CheckpointError, SpecError
from selfsup.whole import sweep, write

Told = Mapping[str, Any]
ARTIFACTS = ("*.png", "bad-*.txt", "images.json")  # files that go to MLflow
WORK = ("pretrain", "embed", "pictures")  # kinds of stages; every other kind is the name of an evaluator


def digest(value: Any, size: int = 6) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


@dataclass(frozen=True)
class Stage:
    """One piece of work with a result of its own. `told` makes its key, `resolved` is kept beside the result.

    entries: the modules that make it. after: the stages that it is made from. name: of the evaluation that it is, or
    whose data it embeds, where that is no other's; the same work under two names is done once.
    """

    kind: str
    told: Told
    resolved: Told
    home: Path
    entries: tuple[str, ...] = ()
    after: tuple["Stage", ...] = ()
    name: str = ""

    @cached_property
    def key(self) -> str:
        return f"{self.kind}-{digest(self.told)}"

    @property
    def folder(self) -> Path:
        return self.home / "stages" / self.key

    @property
    def spool(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def settings(self) -> dict[str, Any]:
        """`resolved` as it is written beside the result."""
        return dict(json.loads(json.dumps(self.resolved)))

    @property
    def begun(self) -> bool:
        return (self.folder / "stage.json").exists()

    @property
    def done(self) -> bool:
        return (self.folder / "done.json").exists()

    @property
    def space(self) -> str:
        """What the names of its numbers begin with."""
        if self.kind in WORK:
            return f"{self.kind}/{self.name}" if self.name else self.kind
        return f"eval/{self.name or self.kind}"

    def result(self) -> dict[str, float]:
        return dict(self._record()["result"])

    @property
    def time(self) -> int:
        """When it was finished, in milliseconds since 1970."""
        return int(self._record()["time"])

    def artifacts(self) -> list[Path]:
        return sorted(path for name in ARTIFACTS for path in self.folder.glob(name))

    def claim(self) -> None:
        """Make the folder, or find it made by an earlier attempt at the very same work.

        Raises SpecError where the folder holds work of the same key under other defaults.
        """
        note, now = self.folder / "stage.json", self.settings
        if note.exists() and (before := read_json(note)) != now:
            raise SpecError(
                f"{self.folder}: a default has changed since this was begun (there):\n  "
                + "\n  ".join(differences(now, before))
                + "\nWrite the old value into the spec to continue, or remove the folder to start anew"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        write_json(note, now)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works on it inside the block: a second run that wants it waits, then finds it done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def running(self) -> bool:
        """Whether somebody holds it now."""
        try:
            with (self.folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def finish(self, result: Mapping[str, float]) -> None:
        record = {"result": dict(result), "time": time.time_ns() // 1_000_000}
        write_json(self.folder / "done.json", record | {"digest": digest(record)})

    def _record(self) -> dict[str, Any]:
        """Raises CheckpointError where it is not what `finish` wrote."""
        return finished(self.folder / "done.json")


def finished(path: Path) -> dict[str, Any]:
    """What `finish` wrote into a done.json: result, time. Raises CheckpointError for anything else."""
    record = read_json(path, result=dict, time=int)
    sound = all(isinstance(value, (int, float)) for value in record["result"].values())
    if not sound or record.pop("digest", None) not in (None, digest(record)):  # none: older code's
        raise damaged(path)
    return record


def read_json(path: Path, **kinds: Any) -> dict[str, Any]:
    """What `write_json` wrote, with at least these keys of these types. Raises CheckpointError where a disk holds
    anything else, or nothing.
    """
    try:
        told = json.loads(path.read_bytes())
        if isinstance(told, dict) and all(name in told and isinstance(told[name], kinds[name]) for name in kinds):
            return told
    except (ValueError, RecursionError, FileNotFoundError, IsADirectoryError):  # not even text
        pass
    raise damaged(path)


def damaged(path: Path) -> CheckpointError:
    if not path.exists():
        return CheckpointError(f"{path}: missing; remove {path.parent} and run the spec again: it is made anew")
    return CheckpointError(f"{path}: damaged; remove it and run the spec again: what is missing is made anew")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
