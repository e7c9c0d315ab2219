"""Temporary folders that are removed even after a kill: each new one cleans up those of dead processes."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, LOCK = "selfsup-", "alive"  # locked by the process that a folder belongs to


@contextmanager
def scratch(parent: Path, prefix: str = PREFIX, *, keep: bool = False) -> Iterator[Path]:
    """Yield a new folder in `parent`, removed at the end of the block, or with `keep` when the next one is made."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent, prefix)
    hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with (hidden / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = hidden.rename(parent / hidden.name[1:])  # not visible to `sweep` before it is locked
        try:
            yield folder
        finally:
            if not keep:
                with suppress(OSError):
                    _remove(folder)


def sweep(parent: Path, prefix: str) -> None:
    """Remove this user's folders of `scratch` whose process is dead."""
    for folder in abandoned(parent, prefix):
        with suppress(OSError):  # another process sweeps, too
            _remove(folder)


def abandoned(parent: Path, prefix: str = PREFIX) -> Iterator[Path]:
    """Yield this user's folders of `scratch` whose process is dead."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _is_abandoned(folder):
                yield folder


def _is_abandoned(folder: Path) -> bool:
    """Return whether the lock of a folder is free; False without a lock, which is not a folder of `scratch`."""
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last, so that a partly removed one is found again."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)
