"""The mirror of a home on object storage: a folder of this node that holds what the node needs of it."""

import json
import math
import os
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path

from selfsup.mirror_index import (
    MARKS,
    NOTE_BYTES,
    Index,
    Wanted,
    everything,
    files_of,
    indexed,
    is_busy,
    is_known,
    is_private,
    is_whole,
    notes,
    rank,
    read_index,
    size_of,
    stamp,
    unit_of,
)
from selfsup.objects import ObjectInfo, ObjectStore, open_store
from selfsup.whole import part_of, whole, write

INDEX, NODE, SIZES = "index", "node", "sizes.json"
PULLED = ("stages", "runs", "searches")
THREADS = 16
LIMIT, USUAL_GIB = "SELFSUP_MIRROR_GIB", 50.0  # of a mirror
FRESH = 5.0  # seconds for which notes that were fetched count as current
IDLE = 3600.0  # seconds after which a stage that was used may make room


class Mirror:
    """The mirror of a home, in a folder of this node."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.pulled = -math.inf  # time of the latest `pull`

    @cached_property
    def store(self) -> ObjectStore:
        return open_store(self.url)

    @cached_property
    def node(self) -> str:
        """Return the name of this copy of the home: processes with the same one share its files."""
        path = self.root / NODE
        if not path.exists():
            part = part_of(path)
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(f"{os.uname().nodename}-{secrets.token_hex(6)}")
            with suppress(FileExistsError):
                os.link(part, path)
            part.unlink()
        return path.read_text()

    def name(self, path: Path) -> str:
        """Return the name of the object that a file mirrors."""
        return path.relative_to(self.root).as_posix()

    def publish(self, path: Path, *, parts: bool = False) -> None:
        """Write what is new of a file or folder to storage. parts: unfinished ones too. Raises StorageError."""
        with self._index(path) as index, ThreadPoolExecutor(THREADS) as pool:
            files = {self.name(file): file for file in files_of(path)}
            new = [
                name
                for name in files
                if not is_private(name, parts=parts) and not is_known(files[name], index.get(name))
            ]
            for place in range(len(MARKS) + 1):
                ready = [name for name in new if rank(name) == place]
                list(pool.map(lambda name: self._upload(name, files[name], index), ready))

    def _upload(self, name: str, file: Path, index: Index) -> None:
        with suppress(FileNotFoundError):  # an older checkpoint that was removed meanwhile
            size, changed = stamp(file)
            tag = self.store.write(name, file.read_bytes() if size <= NOTE_BYTES else file)
            index[name] = tag, size, changed

    def fetch(self, folder: Path, wanted: Wanted = everything, *, exact: bool = False) -> None:
        """Make a folder what storage has of it. Raises StorageError.

        Files of this node that were never published stay, unless another node worked there, or `exact`.
        """
        with self._index(folder) as index:
            self._fetch(folder, {info.name: info for info in self.store.list(self.name(folder))}, index, wanted, exact)

    def _fetch(self, folder: Path, there: Mapping[str, ObjectInfo], index: Index, wanted: Wanted, exact: bool) -> None:
        prefix = f"{self.name(folder)}/"
        known = {name: entry for name, entry in index.items() if name.startswith(prefix)}
        foreign = [name for name in known if name not in there or there[name].tag != known[name][0]]
        for name in foreign:
            del index[name]
        if foreign or exact:
            for file in files_of(folder):
                if self.name(file) not in there and not is_private(self.name(file), parts=True):
                    file.unlink(missing_ok=True)
        missing = [
            name
            for name, info in there.items()
            if wanted(name.removeprefix(prefix), info.size)
            and is_whole(name, there)
            and not (name in index and (self.root / name).exists() and not (foreign or exact))
            and not is_known(self.root / name, index.get(name))
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            for place in range(len(MARKS) + 1):
                ready = [name for name in missing if rank(name) == place]
                list(pool.map(lambda name: self._download(there[name], index), ready))

    def _download(self, info: ObjectInfo, index: Index) -> None:
        path = self.root / info.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), whole(path) as part:  # removed meanwhile
            self.store.download(info.name, part)
            index[info.name] = info.tag, *stamp(part)

    def remove(self, path: Path) -> None:
        """Remove a file or folder from storage. Raises StorageError."""
        name = self.name(path)
        self._remove(path, [name, *(info.name for info in self.store.list(name))])

    def discard_parts(self, folder: Path) -> None:
        """Remove unfinished files in a folder from storage. Raises StorageError."""
        names = [info.name for info in self.store.list(self.name(folder))]
        self._remove(folder, [name for name in names if is_private(name, parts=False)])

    def _remove(self, path: Path, gone: list[str]) -> None:
        with self._index(path) as index:
            self.store.remove(sorted(gone, key=rank, reverse=True))  # marks first
            for one in gone:
                index.pop(one, None)

    def is_fresh(self, seconds: float = FRESH) -> bool:
        """Return whether the latest `pull` is so recent."""
        return time.monotonic() < self.pulled + seconds

    def pull(self) -> None:
        """Fetch the notes of all stages and runs. Raises StorageError."""
        units: defaultdict[str, dict[str, ObjectInfo]] = defaultdict(dict)
        for top in PULLED:
            for info in self.store.list(top):
                units[unit_of(info.name)][info.name] = info
        known = (path.stem.replace("--", "/") for path in (self.root / INDEX).glob("*.json"))
        gone = {unit for unit in known if unit.split("/")[0] in PULLED} - units.keys()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda unit: self._pull(unit, units.get(unit, {})), [*units, *gone]))
        sizes = {unit: sum(info.size for info in there.values()) for unit, there in units.items()}
        write(self.root / SIZES, json.dumps(sizes))

    def size(self, folder: Path) -> int:
        """Return the bytes that storage had in the folder of a stage at the latest `pull`."""
        sizes = json.loads((self.root / SIZES).read_bytes()) if (self.root / SIZES).exists() else {}
        return int(sizes.get(self.name(folder), 0))

    def _pull(self, unit: str, there: Mapping[str, ObjectInfo]) -> None:
        """Fetch the notes of one folder, unless a process of this node uses it, which has them."""
        folder = self.root / unit
        with suppress(BlockingIOError), self._index(folder, wait=False) as index:
            if not is_busy(folder):
                self._fetch(folder, there, index, notes, exact=False)
                if not there:
                    shutil.rmtree(folder, ignore_errors=True)

    def is_published(self, path: Path) -> bool:
        return is_known(path, read_index(self._index_of(path)).get(self.name(path)))

    def published(self, folder: Path) -> list[str]:
        """Return the names of the objects in a folder that this node has published or fetched."""
        prefix = f"{self.name(folder)}/"
        return [name for name in read_index(self._index_of(folder)) if name.startswith(prefix)]

    def make_room(self) -> None:
        """Remove files of stages that are whole in storage, the oldest use first, until the mirror is small enough."""
        limit = float(os.environ.get(LIMIT) or USUAL_GIB) * 2**30
        folders = [*self.root.glob("stages/*")]
        total = sum(map(size_of, folders))
        used = {folder: self._index_of(folder).stat().st_mtime for folder in folders if self._index_of(folder).exists()}
        for folder in sorted(used, key=lambda folder: used[folder]):
            if total <= limit or used[folder] > time.time() - IDLE:
                return
            total -= self._evict(folder)

    def _evict(self, folder: Path) -> int:
        """Remove the files of a stage that storage has, but for notes; return how many bytes they were."""
        total = 0
        with suppress(BlockingIOError), self._index(folder, wait=False) as index:
            for file in [] if is_busy(folder) else files_of(folder):
                name, (size, _) = self.name(file), stamp(file)
                if is_known(file, index.get(name)) and not notes(file.relative_to(folder).as_posix(), size):
                    file.unlink()
                    del index[name]
                    total += size
        return total

    def _index_of(self, path: Path) -> Path:
        return self.root / INDEX / f"{unit_of(self.name(path)).replace('/', '--')}.json"

    def _index(self, path: Path, *, wait: bool = True) -> AbstractContextManager[Index]:
        """Return a context of the index of a stage or another folder."""
        return indexed(self._index_of(path), wait=wait)
