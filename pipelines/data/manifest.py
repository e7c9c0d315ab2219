"""The manifest of a data set of WebDataset shards.

    manifest.json             classes, counts, fields with mean and deviation, digest; written last, which completes it
    manifest-shards.parquet   a row per shard: name, samples, bytes, checksum
    manifest-samples.npy      a row per sample: the places of its fields in its shard, and its label; see `rows`

Manifest and shards lie anywhere that `storage` can read. In memory are the rows of all shards, 60 bytes each, and a
bounded number of pages of the rows of samples.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup import modality
from selfsup.errors import DataError
from selfsup.folders import node_cache_folder
from selfsup.homes import fetch_data
from selfsup.pipelines.data import head, storage, urls
from selfsup.pipelines.data.cache import Cache
from selfsup.pipelines.data.fetch import ReadOptions, ShardReader
from selfsup.pipelines.data.folders import first_step
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.rows import NAME as SAMPLES
from selfsup.pipelines.data.rows import SampleIndex, beside_name
from selfsup.pipelines.data.shard_rows import SHARD_ROW, SHARDS, read_shards
from selfsup.pipelines.data.subset import Subset

HEAD = (
    "digest",
    "num_samples",
    "num_labelled",
    "num_shards",
    "members",
    "classes",
    "fields",
    "annotations",
    "beside",
    "readings",
    "lacking",
)  # of manifest.json


@dataclass(frozen=True)
class Manifest:
    """A data set. Pickled as its address and digest; unpickling raises DataError where the data set has changed.

    home, root: the folders of the manifest and of the shards, which differ where the shards' is read-only. digest: of
    everything that results depend on but `subset`, the part that it is of (None: all); rows_digest: of places and
    labels. members: the kinds of members of the shards. fields: of every sample, or of most where none is of every one,
    modality -> how it is read and normalized. annotations: of every sample, maps. The columns of the index are the
    fields, then the annotations.
    renamed: whether its classes are called otherwise than in its files. beside: companions of every sample, modality ->
    the digest of the index of its places, which is a file of its own: data sets that gain one keep their own digest.
    readings: how those are read and normalized, where that is not alike for all data sets. lacking: those of `fields`
    and `beside`, and annotations there, that are of some samples alone -> how many have none.
    """

    home: str
    root: str
    digest: str
    rows_digest: str
    num_samples: int
    num_labelled: int
    members: tuple[str, ...]
    classes: tuple[str, ...]
    fields: Mapping[str, Any]
    shards: pa.Table = field(repr=False, compare=False)
    annotations: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, Any] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    read_options: ReadOptions = field(default=ReadOptions(), compare=False)
    subset: Subset | None = None
    renamed: bool = False

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """-> (shards,) samples of each shard; by way of a list, since pyarrow's own conversion imports pandas"""
        return np.array(self.shards["samples"].to_pylist(), np.int64)

    @property
    def total(self) -> int:
        """Return the number of samples in its shards."""
        return int(self.counts.sum())

    def part(self, subset: Subset) -> "Manifest":
        """Return a part of the data set: samples are numbered anew, in the same order."""
        if subset == Subset() and self.num_labelled == self.num_samples:
            return self
        numbers = self._numbers(subset)
        labelled = int((self.rows.take(numbers)["label"] >= 0).sum())
        return replace(self, num_samples=len(numbers), num_labelled=labelled, subset=subset)

    def having(self, name: str) -> "Manifest":
        """Return the samples that have a modality, or an annotation."""
        return self.part(Subset(fields=(name,))) if name in self.lacking else self

    def _numbers(self, subset: Subset) -> Ints:
        """Return the numbers of the samples of a part, sorted."""
        whole = np.arange(self.total)
        if subset.fields:
            tables = (self.table(name) for name in subset.fields)
            has = [table.take(whole, column)["length"] >= 0 for table, column in tables]
            return np.flatnonzero(np.logical_and.reduce(has))
        return subset.numbers(self.rows.take(whole)["label"])

    def called(self, names: tuple[str, ...]) -> "Manifest":
        """Return the data set with other names of its classes; samples of those called "" count as unlabelled."""
        content = json.dumps([self.digest, names]).encode()
        own = hashlib.blake2b(content, digest_size=16).hexdigest()
        return replace(self, classes=names, digest=own, renamed=True)

    @cached_property
    def chosen(self) -> Ints | None:
        """-> (num_samples,) the numbers of its samples in the data set; None where it is whole"""
        return self.subset and self._numbers(self.subset)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """-> (shards,) number of each shard's first sample"""
        return np.cumsum(self.counts) - self.counts

    def shard(self, index: Ints) -> Ints:
        """(n,) sample numbers -> (n,) shard numbers"""
        return np.searchsorted(self.starts, index, side="right") - 1

    @cached_property
    def cache(self) -> Cache | None:
        is_used = urls.is_remote(self.root) and self.read_options.cache
        return Cache(node_cache_folder(), self.read_options.cache) if is_used else None

    @cached_property
    def rows(self) -> SampleIndex:
        return self._index(SAMPLES, len(self.fields) + len(self.annotations), self.rows_digest)

    def table(self, name: str) -> tuple[SampleIndex, int]:
        """Return the rows of a modality, or of an annotation, and its column there."""
        if name in self.beside:
            return self._index(beside_name(name), 1, self.beside[name]), 0
        return self.rows, [*self.fields, *self.annotations].index(name)

    def _index(self, file: str, fields: int, digest: str) -> SampleIndex:
        return SampleIndex(
            self.home,
            file,
            samples=self.total,
            fields=fields,
            classes=len(self.classes),
            digest=digest,
            cache=self.cache if urls.is_remote(self.home) else None,
            remedy=_remedy(self.home),
        )

    def reading(self, name: str) -> Any:
        """Return how a field, or what lies beside it, is read and normalized."""
        known = {**self.readings, **self.fields}
        if name in known:
            return known[name]
        kind = modality.load(name)
        return known[kind.kin] if kind.kin else kind.Stats()

    @cached_property
    def files(self) -> ShardReader:
        skip = self.read_options.missing == "skip"
        return ShardReader(self.root, self.shards, cache=self.cache, skip=skip, remedy=_remedy(self.root))

    def with_cache(self, order: SampleOrder, cache: int, nodes: int = 1) -> "Manifest":
        """Return the manifest as a stream of this order reads it, with a cache of `cache` bytes on each of its nodes.

        Where the caches hold all chunks that the order has in play, whole chunks are fetched and cached; else a chunk
        would be fetched for one sample of it at a time, and single samples are.
        """
        size = sum(self.shards["bytes"].to_pylist()) / self.total
        fits = order.in_play * size <= nodes * cache
        options = ReadOptions(cache, order.chunk if fits else 1, self.read_options.missing)
        return replace(self, read_options=options)

    def __reduce__(self) -> tuple[Any, ...]:
        names = self.classes if self.renamed else None
        return _reload, (self.home, self.digest, self.read_options, self.subset, names)


@lru_cache(maxsize=8)  # shares pages, open files and connections among all tasks of a process
def _reload(
    home: str, digest: str, options: ReadOptions, subset: Subset | None = None, names: tuple[str, ...] | None = None
) -> Manifest:
    fetch_data(Path(home))
    manifest = load(home, options)
    manifest = manifest.called(names) if names else manifest
    if manifest.digest != digest:
        raise DataError(f"{home}: the data set was indexed anew while in use: {digest} became {manifest.digest}")
    return manifest.part(subset) if subset else manifest


def load(url: str, options: ReadOptions | None = None) -> Manifest:
    """Load the manifest in a folder. Raises DataError where there is none, or where its files disagree.

    Rows of samples are read when needed; those of a local manifest are verified now if all of them fit in memory.
    """
    home = urls.absolute(url)
    remedy = _remedy(home)
    data = storage.read(home, head.NAME, remedy=first_step(home, _remedy(home)))
    content = head.parse(data, url=urls.join(home, head.NAME), remedy=remedy)
    manifest = Manifest(
        home=home,
        root=content.root or home,
        rows_digest=content.rows,
        shards=read_shards(home, content, remedy),
        read_options=options or ReadOptions(),
        **{name: getattr(content, name) for name in HEAD if name != "num_shards"},
    )
    if digest(manifest) != content.digest:
        raise DataError(
            f"{home}: {SHARDS} is not the one that {head.NAME} was written with, or one was changed: {remedy}"
        )
    if not urls.is_remote(home) and manifest.rows.fits_in_memory:
        manifest.rows.take(np.arange(manifest.num_samples))
    return manifest


def digest(manifest: Manifest) -> str:
    """Return 32 hex digits over shards, rows, classes and fields; wherever they lie.

    Images alone go without their name: so their digest is what earlier versions of the manifest had.
    """
    shards = [manifest.shards[name].to_pylist() for name in SHARD_ROW.names]
    rest = (getattr(manifest, name) for name in ("rows_digest", "num_labelled", "members", "classes"))
    only_images = list(manifest.fields) == ["image"]
    fields = [
        part
        for name, stats in manifest.fields.items()
        for part in [*([] if only_images else [name]), *stats.identity()]
    ]
    content = [*shards, *rest, *fields, *([manifest.annotations] if manifest.annotations else [])]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _remedy(folder: str) -> str:
    return f"run `selfsup shards index {folder}`"
