"""Homes on object storage, such as SELFSUP_HOME=s3://bucket/prefix: a folder of each node mirrors what it needs of one.

The folder is named after the URL, in the node's cache, so that paths stay paths, the same ones on every node of a
cluster, and say by themselves what they mirror. Every function here leaves the paths of a local home alone.
Work is written to the mirror and then published: files first, then the mark that they are whole: the digests of a
checkpoint, the done.json of a stage. Without its mark nothing counts, so that a kill leaves no half of anything.
What others published is fetched where it is needed: notes, which are small, for plans and reports; weights and features
for the work that reads them; checkpoints where training goes on.
An index holds the tag of every object as this node last saw it. Where storage has another, another node worked there,
and storage is right; where it has the same, so is what this node wrote since, as a kill left it.
Stages are claimed, in `claims`. Mirrors are bounded: stages that are whole in storage make room, the oldest use first.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote, unquote

from selfsup.apart import apart
from selfsup.errors import SpecError
from selfsup.folders import node_cache_folder
from selfsup.mirror import FRESH, Mirror
from selfsup.mirror_index import Wanted, everything, notes, size_of
from selfsup.objects import StorageError
from selfsup.redact import REMEDY, has_secret, redacted

HOMES = "selfsup-homes"
DURABLE = "durable.json"  # in the folder of a training: {step}, the last that storage has
ROOT = re.compile(rf"(/.*/{HOMES}/([^/]+))(?:/|$)")
MAX_NAME = 200
LONGEST_DELAY = 30.0  # seconds between attempts


def home_at(url: str) -> Path:
    """Return the folder of this node that mirrors the home at a URL. Raises SpecError where there can be none."""
    if has_secret(url):
        raise SpecError(f"SELFSUP_HOME: {redacted(url)}: {REMEDY}")
    name = quote(url.rstrip("/"), safe="").replace("_", "%5F").replace("%", "_")
    if url.startswith(("file:", "http:", "https:")) or len(name) > MAX_NAME:
        kinds = "a folder, or storage that can be written, such as s3://bucket/prefix"
        raise SpecError(f"SELFSUP_HOME: {url}: expected {kinds}, in at most {MAX_NAME} characters")
    path = node_cache_folder() / HOMES / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise SpecError(f"{path}: belongs to another user; set SELFSUP_CACHE to a folder of your own")
    return path


def mirror_of(path: Path) -> Mirror | None:
    """Return the mirror that a path lies in; None for one of a local home."""
    match = ROOT.match(str(path)) if HOMES in str(path) else None
    return _mirror(match[1], match[2], os.getpid()) if match else None


@lru_cache(maxsize=16)
def _mirror(root: str, name: str, _: int) -> Mirror:
    """Return the mirror of a folder, of this process: connections do not outlive a fork."""
    return Mirror(Path(root), unquote(name.replace("_", "%")))


def publish(path: Path, *, patience: float = 0.0) -> None:
    """Write what is new of a file or folder to storage.

    patience: seconds to wait for storage that does not answer. Raises StorageError.
    """
    if mirror := mirror_of(path):
        _patiently(lambda: mirror.publish(path), patience)


def fetch(folders: Iterable[Path], wanted: Wanted = everything, *, exact: bool = False, patience: float = 0.0) -> None:
    """Make folders what storage has of them. patience and errors as of `publish`."""
    for folder in folders:
        if mirror := mirror_of(folder):
            _patiently(partial(mirror.fetch, folder, wanted, exact=exact), patience)


@contextmanager
def following(folders: Iterable[Path]) -> Iterator[None]:
    """Fetch the notes of stages now and then inside the block, and at its end, as another node writes them."""
    remote = [folder for folder in folders if mirror_of(folder)]
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(remote, ended), name="selfsup-following", daemon=True)
    if remote:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if remote:
            thread.join()


def _follow(folders: Sequence[Path], ended: threading.Event) -> None:
    is_last = False
    while not is_last:
        is_last = ended.wait(FRESH)
        with suppress(StorageError):
            fetch(folders, notes)


def forget(path: Path) -> None:
    """Remove a file or folder from storage. Raises StorageError."""
    if mirror := mirror_of(path):
        apart(partial(mirror.remove, path))


def _patiently(request: Callable[[], None], patience: float) -> None:
    deadline, delay = time.monotonic() + patience, 1.0
    while True:
        try:
            return apart(request)
        except StorageError:
            if time.monotonic() + delay > deadline:
                raise
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def is_published(path: Path) -> bool:
    """Return whether storage has a file as it is here, or needs not."""
    mirror = mirror_of(path)
    return mirror is None or mirror.is_published(path)


def discard_parts(folder: Path) -> None:
    """Remove unfinished files of a stage that other nodes published. Raises StorageError."""
    if mirror := mirror_of(folder):
        mirror.discard_parts(folder)


def fetch_data(folder: Path) -> None:
    """Fetch a data set that this node lacks. Raises StorageError."""
    mirror = mirror_of(folder)
    if mirror and not (folder / "manifest.json").exists():
        apart(partial(mirror.fetch, folder))


def size(path: Path) -> int:
    """Return the bytes of a folder's files, on object storage where it is of such a home; 0 where there is none."""
    mirror = mirror_of(path)
    return mirror.size(path) if mirror else size_of(path)


def make_room(home: Path) -> None:
    """Keep what this node has of a home on storage within its bounds."""
    if mirror := mirror_of(home):
        mirror.make_room()


def pull(home: Path, fresh: float = FRESH) -> None:
    """Fetch the notes of all stages and runs of a home, but for those fetched `fresh` s ago. Raises StorageError."""
    if (mirror := mirror_of(home)) and not mirror.is_fresh(fresh):
        apart(mirror.pull)
        mirror.pulled = time.monotonic()


def shown(path: Path) -> str:
    """Return the URL of what lies in a home on storage; of any other its path."""
    mirror = mirror_of(path)
    return f"{redacted(mirror.url)}/{mirror.name(path)}".removesuffix("/.") if mirror else str(path)
