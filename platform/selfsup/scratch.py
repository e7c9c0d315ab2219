"""Folders for as long as a process needs them; whoever makes one sweeps up after processes that were killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "alive"  # held by the process that a folder belongs to


@contextmanager
def scratch(parent: Path, prefix: str = "selfsup-", *, keep: bool = False) -> Iterator[Path]:
    """A new folder in `parent` for as long as the block runs; with `keep`, until the next one is made there."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent, prefix)
    hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with (hidden / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = hidden.rename(parent / hidden.name[1:])  # nobody sees it before its lock is held
        try:
            yield folder
        finally:
            if not keep:
                with suppress(OSError):
                    _remove(folder)


def sweep(parent: Path, prefix: str) -> None:
    """Remove what was made by `scratch`, for this user, and whose process is dead. Anything else stays."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # another process sweeps, too
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _dead(folder):
                _remove(folder)


def _dead(folder: Path) -> bool:
    """Where there is no lock, nothing says so."""
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    """The lock last: what cannot be removed yet is found again."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)
