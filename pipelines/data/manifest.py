"""What a data set holds and where: the manifest beside its WebDataset shards, and reads of any samples through it.

    manifest.json             classes, counts, mean and deviation, digest; written last, so that it seals the rest
    manifest-shards.parquet   a row a shard: name, samples, bytes, checksum
    manifest-samples.npy      a row a sample: where it lies in its shard, and its label; see `rows`

Manifest and shards lie wherever `storage` can read. A process holds the rows of the shards, 60 bytes each, and of the
samples no more than a bounded number of pages.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.naming import unfit
from selfsup.pipelines.data import head, storage, urls
from selfsup.pipelines.data.cache import Cache, node_folder
from selfsup.pipelines.data.fetch import (
    GAP,
    GAP_REMOTE,
    Access,
    Job,
    Shards,
    pieces,
    runs,
)
from selfsup.pipelines.data.head import Head
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.rows import NAME as SAMPLES
from selfsup.pipelines.data.rows import Rows, Table, Written, write_rows
from selfsup.pipelines.modalities.decode import Data

SHARDS = "manifest-shards.parquet"
SHARD_ROW = pa.schema({"name": pa.string(), "samples": pa.int64(), "bytes": pa.int64(), "checksum": pa.string()})
NAME_BYTES = 1024  # the longest key of an object store
READS, READS_REMOTE = 4, 64  # at a time; an object store answers each after tens of milliseconds


@dataclass(frozen=True)
class Manifest:
    """A data set, frozen. Pickled as its address and digest: cheap to send, and refused where the data has changed."""

    home: str  # where the manifest lies
    root: str  # where the shards lie: the same, unless the shards' place is read-only
    digest: str  # of all that results depend on
    rows_digest: str  # of places and labels alone
    num_samples: int
    num_labelled: int
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, pixels in [0, 1]
    std: tuple[float, ...]
    shards: pa.Table = field(repr=False, compare=False)
    bits: int | None = None  # how many of their 16 deep images use; None: all
    access: Access = field(default=Access(), compare=False)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(shards,) the number of each shard's first sample."""
        counts: NDArray[np.int64] = self.shards["samples"].to_numpy()
        return np.cumsum(counts) - counts

    def shard(self, index: Ints) -> Ints:
        """(n,) sample numbers -> the number of the shard of each."""
        return np.searchsorted(self.starts, index, side="right") - 1

    @cached_property
    def cache(self) -> Cache | None:
        keeps = urls.is_remote(self.root) and self.access.cache
        return Cache(node_folder(), self.access.cache) if keeps else None

    @cached_property
    def rows(self) -> Rows:
        cache = self.cache if urls.is_remote(self.home) else None
        return Rows(
            self.home,
            samples=self.num_samples,
            classes=len(self.classes),
            digest=self.rows_digest,
            cache=cache,
            remedy=_remedy(self.home),
        )

    @cached_property
    def files(self) -> Shards:
        skip = self.access.missing == "skip"
        return Shards(self.root, self.shards, cache=self.cache, skip=skip, remedy=_remedy(self.root))

    def reached(self, order: SampleOrder, cache: int) -> "Manifest":
        """As a stream in this order reads it, with `cache` bytes on each node for what is remote.

        Where these hold all chunks that the order has in play, it is chunks that are fetched and kept; else they would
        be fetched for one sample each, and it is samples.
        """
        size = sum(self.shards["bytes"].to_pylist()) / self.num_samples
        fits = order.in_play * size <= cache
        return replace(self, access=Access(cache, order.chunk if fits else 1, self.access.missing))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.home, self.digest, self.access)


class Sample(NamedTuple):
    key: str
    data: Data  # of the image, as it lies in the shard
    label: int | None


@lru_cache(maxsize=8)  # and with it the pages, open files and connections that all tasks of a process share
def _again(home: str, digest: str, access: Access) -> Manifest:
    manifest = load(home, access)
    if manifest.digest != digest:
        raise DataError(f"{home}: the data set was indexed anew while in use: {digest} became {manifest.digest}")
    return manifest


def load(url: str, access: Access | None = None) -> Manifest:
    """The manifest in a folder, without its samples. DataError where there is none, or where its files disagree.

    Local rows are verified at once if all of them can be held; else each page is when it is read.
    """
    home = urls.absolute(url)
    remedy = _remedy(home)
    where = urls.within(home, head.NAME)
    told = head.parse(
        storage.read(home, head.NAME, remedy=f"for a folder of shards, {remedy}"), url=where, remedy=remedy
    )
    manifest = Manifest(
        home=home,
        root=told.root or home,
        rows_digest=told.rows,
        shards=_shards(home, told, remedy),
        access=access or Access(),
        **told.model_dump(exclude={"version", "root", "rows", "num_shards"}),
    )
    if digest(manifest) != told.digest:
        raise DataError(
            f"{home}: {SHARDS} is not the one that {head.NAME} was written with, or one was changed: {remedy}"
        )
    if not urls.is_remote(home) and manifest.rows.fit:
        manifest.rows.take(np.arange(manifest.num_samples))
    return manifest


def _shards(home: str, told: Head, remedy: str) -> pa.Table:
    file = pa.BufferReader(storage.read(home, SHARDS, remedy=remedy))
    try:
        # by no threads: one that still holds Python's bytes as the interpreter ends aborts the process
        shards = pq.ParquetFile(file).read(use_threads=False).cast(SHARD_ROW)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{urls.within(home, SHARDS)}: damaged: {str(error).strip()}; {remedy}") from error
    for name in shards["name"].to_pylist():
        if why := "a name" if name is None else unfit(name, longest=NAME_BYTES):
            raise DataError(f"{urls.within(home, SHARDS)}: a shard is called {name!r}; expected {why}: {remedy}")
    counts = shards["samples"].to_pylist()
    if (
        None in counts
        or min(counts, default=0) < 1
        or (len(counts), sum(counts)) != (told.num_shards, told.num_samples)
    ):
        expected = f"with {told.num_samples} samples in {told.num_shards} shards"
        raise DataError(f"{home}: {SHARDS} is not the one that {head.NAME} was written with, {expected}: {remedy}")
    return shards


def digest(manifest: Manifest) -> str:
    """32 hex digits over shards, places and labels of samples, classes, mean, deviation, bits; wherever these lie."""
    shards = [manifest.shards[name].to_pylist() for name in SHARD_ROW.names]
    rest = (getattr(manifest, name) for name in ("rows_digest", "num_labelled", "fields", "classes", "mean", "std"))
    bits = [manifest.bits] if manifest.bits else []
    return hashlib.blake2b(json.dumps([*shards, *rest, *bits]).encode(), digest_size=16).hexdigest()


def write_tables(home: str, shards: pa.Table, blocks: Callable[[], Iterable[Table]]) -> Written:
    """The shards, and the rows of all samples block by block; `write_head` makes a manifest of them."""
    written = write_rows(home, blocks, samples=sum(shards["samples"].to_pylist()))
    sink = pa.BufferOutputStream()
    pq.write_table(shards.cast(SHARD_ROW), sink)
    storage.write(home, SHARDS, sink.getvalue().to_pybytes())
    return written


def withdraw(home: str) -> None:
    """Remove tables that no head belongs to."""
    if head.NAME not in storage.names(home, suffix=head.NAME):
        storage.remove(home, SHARDS)
        storage.remove(home, SAMPLES)


def write_head(draft: Manifest) -> Manifest:
    """-> the manifest with its digest"""
    made = replace(draft, digest=digest(draft))
    storage.write(made.home, head.NAME, (head_of(made).model_dump_json(indent=2) + "\n").encode())
    return made


def head_of(manifest: Manifest) -> Head:
    names = ("digest", "num_samples", "num_labelled", "num_shards", "fields", "classes", "mean", "std", "bits")
    root = None if manifest.root == manifest.home else manifest.root  # none: the folder can be moved
    told = {name: getattr(manifest, name) for name in names}
    return Head(version=head.VERSION, root=root, rows=manifest.rows_digest, **told)


class Reader:
    """Reads samples by their number."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self._rows, self._files = manifest, manifest.rows, manifest.files
        self._threads = READS_REMOTE if urls.is_remote(manifest.root) else READS

    def read(self, index: Ints) -> list[Sample]:
        """(n,) sample numbers -> n samples in that order, by few large reads, several at a time.

        DataError where a shard cannot be reached, is missing, or is not the one that was indexed.
        """
        if len(index) == 0:
            return []
        assert 0 <= index.min() <= index.max() < self.manifest.num_samples
        found: list[Sample] = [Sample("", b"", None)] * len(index)
        with ThreadPoolExecutor(self._threads) as pool:
            where = self._rows.take(index, pool.map)
            jobs = self._jobs(index, where)

            def work(share: list[Job]) -> None:
                for job in share:
                    labels = where["label"][job.places].tolist()
                    made = self._files.fetch(job, where[job.places])
                    for place, (key, data), label in zip(job.places.tolist(), made, labels, strict=True):
                        found[place] = Sample(key, data, label if label >= 0 else None)

            list(pool.map(work, (jobs[first :: self._threads] for first in range(self._threads))))
        return found

    def _jobs(self, index: Ints, where: Table) -> list[Job]:
        told = self.manifest
        shard = told.shard(index)
        if told.cache is None:
            return runs(index, where, shard, GAP_REMOTE if urls.is_remote(told.root) else GAP)
        samples = told.shards["samples"].to_numpy()
        length = told.access.piece
        return pieces(
            index, shard, rows=self._rows, starts=told.starts, samples=samples, length=length, digest=told.digest
        )


def _remedy(folder: str) -> str:
    return f"run `selfsup shards index {folder}`"
