"""What a data set holds and where: the manifest beside its WebDataset shards, and reads of any samples through it.

    manifest.json             classes, counts, mean and deviation, digest; written last, so that it seals the rest
    manifest-shards.parquet   a row a shard: name, samples, bytes, checksum
    manifest-samples.parquet  a row a sample: shard, key, offset, size, format, label; one row group a shard

Manifest and shards lie wherever `storage` can read.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines import storage

VERSION = 1
HEAD, SHARDS, SAMPLES = "manifest.json", "manifest-shards.parquet", "manifest-samples.parquet"
SHARD_ROW = pa.schema({"name": pa.string(), "samples": pa.int64(), "bytes": pa.int64(), "checksum": pa.string()})
SAMPLE_ROW = pa.schema(
    {
        "shard": pa.int32(),
        "key": pa.string(),
        "offset": pa.int64(),  # of the image member's data
        "size": pa.int32(),
        "format": pa.string(),
        "label": pa.int32(),
    }
)
GAP = 2**18  # bytes: reading over such a gap is cheaper than asking again
RUN = 2**24  # bytes of one read, so that several go on at a time
READS = 16  # at a time; an object store answers each after tens of milliseconds
OPEN = 64  # shards
HELD = 256  # row groups


@dataclass(frozen=True)
class Manifest:
    """A data set, frozen. Pickled as its address and digest: cheap to send, and refused where the data has changed."""

    home: str  # where the manifest lies
    root: str  # where the shards lie: the same, unless the shards' place is read-only
    digest: str  # of names, sizes and checksums of all shards
    num_samples: int
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, pixels in [0, 1]
    std: tuple[float, ...]
    shards: pa.Table = field(repr=False, compare=False)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(shards,) the number of each shard's first sample."""
        counts: NDArray[np.int64] = self.shards["samples"].to_numpy()
        return np.cumsum(counts) - counts

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.home, self.digest)


@lru_cache(maxsize=8)
def _again(home: str, digest: str) -> Manifest:
    manifest = load(home)
    if manifest.digest != digest:
        raise DataError(f"{home}: the data set was indexed anew while in use: {digest} became {manifest.digest}")
    return manifest


class Sample(NamedTuple):
    key: str
    data: bytes  # of the image, as it lies in the shard
    label: int | None


def load(url: str) -> Manifest:
    """The manifest in a folder, without its samples. DataError where there is none, or where its files disagree."""
    home = storage.absolute(url)
    head = json.loads(storage.read(home, HEAD, remedy=f"for a folder of shards, {_remedy(home)}").to_pybytes())
    if head["version"] != VERSION:
        raise DataError(f"{home}/{HEAD}: version {head['version']}, not {VERSION}: {_remedy(home)}")
    shards = pq.read_table(pa.BufferReader(storage.read(home, SHARDS, remedy=_remedy(home))))
    if digest(shards) != head["digest"]:
        raise DataError(f"{home}: {SHARDS} is not the one that {HEAD} was written with: {_remedy(home)}")
    return Manifest(
        home=home,
        root=head["root"] or home,
        digest=head["digest"],
        num_samples=head["num_samples"],
        fields=tuple(head["fields"]),
        classes=tuple(head["classes"]),
        mean=tuple(head["mean"]),
        std=tuple(head["std"]),
        shards=shards,
    )


def digest(shards: pa.Table) -> str:
    """32 hex digits over names, sizes and checksums, wherever the shards lie."""
    columns = (shards[name].to_pylist() for name in ("name", "bytes", "checksum"))
    lines = "".join(f"{name} {size} {checksum}\n" for name, size, checksum in zip(*columns, strict=True))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def write_tables(home: str, shards: pa.Table, samples: Sequence[pa.Table]) -> None:
    """The shards, and the samples of each; `write_head` makes a manifest of them."""
    sink = pa.BufferOutputStream()
    schema = SAMPLE_ROW.with_metadata({"digest": digest(shards)})
    with pq.ParquetWriter(sink, schema, write_statistics=False) as writer:
        for table in samples:
            writer.write_table(table.cast(schema), row_group_size=len(table))
    storage.write(home, SAMPLES, sink.getvalue())
    sink = pa.BufferOutputStream()
    pq.write_table(shards.cast(SHARD_ROW), sink)
    storage.write(home, SHARDS, sink.getvalue())


def write_head(manifest: Manifest) -> None:
    names = ("digest", "num_samples", "num_shards", "fields", "classes", "mean", "std")
    root = None if manifest.root == manifest.home else manifest.root  # none: the folder can be moved
    head = {"version": VERSION, "root": root} | {name: getattr(manifest, name) for name in names}
    storage.write(manifest.home, HEAD, (json.dumps(head, indent=2) + "\n").encode())


class Reader:
    """Reads samples by their number. Holds open files, and the rows of the shards it was asked for last."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        table = storage.opened(manifest.home, SAMPLES, remedy=_remedy(manifest.home))
        self._samples = pq.ParquetFile(table, pre_buffer=True)
        metadata = self._samples.schema_arrow.metadata or {}
        if metadata.get(b"digest", b"").decode() != manifest.digest:
            raise DataError(f"{manifest.home}: {SAMPLES} belongs to other shards: {_remedy(manifest.home)}")
        self._held: dict[int, pa.Table] = {}
        self._shard = lru_cache(maxsize=OPEN)(self._open)

    def read(self, index: NDArray[np.int64]) -> list[Sample]:
        """(n,) sample numbers -> n samples in that order, by few large reads.

        DataError where a shard is missing, or is not the one that was indexed.
        """
        rows = self.locate(index).to_pylist()
        runs = _runs(rows)
        data: list[bytes] = [b""] * len(rows)
        with ThreadPoolExecutor(READS) as pool:
            for run, found in zip(runs, pool.map(self._fetch, ([rows[at] for at in run] for run in runs)), strict=True):
                for at, piece in zip(run, found, strict=True):
                    data[at] = piece
        return [Sample(row["key"], piece, row["label"]) for row, piece in zip(rows, data, strict=True)]

    def locate(self, index: NDArray[np.int64]) -> pa.Table:
        """(n,) sample numbers -> n rows of the sample table; only the row groups of their shards are read."""
        assert len(index) == 0 or 0 <= index.min() <= index.max() < self.manifest.num_samples
        starts = self.manifest.starts
        shard = np.searchsorted(starts, index, side="right") - 1
        used, position = np.unique(shard, return_inverse=True)
        tables = self._rows([int(number) for number in used])
        first = np.cumsum([0] + [len(table) for table in tables])[position]
        return pa.concat_tables([SAMPLE_ROW.empty_table(), *tables]).take(first + index - starts[shard])

    def _rows(self, shards: list[int]) -> list[pa.Table]:
        old = [number for number in self._held if number not in shards]
        for number in old[: max(0, len(self._held) - HELD)]:
            del self._held[number]
        missing = [number for number in shards if number not in self._held]
        if missing:
            both = self._samples.read_row_groups(missing).replace_schema_metadata(None)
            sizes = self.manifest.shards["samples"].to_numpy()[missing]
            for number, stop, size in zip(missing, np.cumsum(sizes), sizes, strict=True):
                self._held[number] = both.slice(stop - size, size)
        return [self._held[number] for number in shards]

    def _open(self, number: int) -> pa.NativeFile:
        name, size = (self.manifest.shards[column][number].as_py() for column in ("name", "bytes"))
        root = self.manifest.root
        file = storage.opened(root, name, remedy=f"put it back, or {_remedy(root)}")
        if (found := file.size()) != size:
            raise DataError(
                f"{root}/{name}: {found} bytes, but {size} when it was indexed: it is cut or changed; "
                f"fetch it again, or {_remedy(root)}"
            )
        return file

    def _fetch(self, rows: list[dict[str, Any]]) -> list[bytes]:
        """Rows close together in one shard, by offset -> the data of each, in one read."""
        start = rows[0]["offset"]
        stop = rows[-1]["offset"] + rows[-1]["size"]
        block = self._shard(rows[0]["shard"]).read_at(stop - start, start)
        if len(block) != stop - start:
            raise DataError(f"{self.manifest.root}: shard {rows[0]['shard']} ends within sample {rows[-1]['key']}")
        return [block[row["offset"] - start :][: row["size"]] for row in rows]


def _runs(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Places in `rows`, grouped into those worth one read together, each group by offset."""
    runs: list[list[int]] = []
    for at in sorted(range(len(rows)), key=lambda at: (rows[at]["shard"], rows[at]["offset"])):
        if runs and _near(rows[runs[-1][0]], rows[runs[-1][-1]], rows[at]):
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _near(first: dict[str, Any], last: dict[str, Any], row: dict[str, Any]) -> bool:
    gap = row["offset"] - last["offset"] - last["size"]
    length = row["offset"] + row["size"] - first["offset"]
    return bool(row["shard"] == first["shard"] and gap <= GAP and length <= RUN)


def _remedy(folder: str) -> str:
    return f"run `selfsup shards index {folder}`"
