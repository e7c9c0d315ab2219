"""Writing of manifests: the tables first, then the head, which completes them."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from selfsup.pipelines.data import head, storage
from selfsup.pipelines.data.head import ManifestHead
from selfsup.pipelines.data.manifest import HEAD, SHARD_ROW, SHARDS, Manifest, digest
from selfsup.pipelines.data.rows import NAME as SAMPLES
from selfsup.pipelines.data.rows import RowsSummary, Table, write_rows


def write_tables(home: str, shards: pa.Table, fields: int, blocks: Callable[[], Iterable[Table]]) -> RowsSummary:
    """Write the rows of shards, and those of samples in blocks; `write_head` completes the manifest.

    fields: of a sample.
    """
    summary = write_rows(home, blocks, samples=sum(shards["samples"].to_pylist()), fields=fields)
    sink = pa.BufferOutputStream()
    pq.write_table(shards.cast(SHARD_ROW), sink)
    storage.write(home, SHARDS, sink.getvalue().to_pybytes())
    return summary


def remove_tables(home: str) -> None:
    """Remove the tables of an incomplete manifest, one without manifest.json."""
    if head.NAME not in storage.list_files(home, suffix=head.NAME):
        storage.remove(home, SHARDS)
        storage.remove(home, SAMPLES)


def write_head(draft: Manifest) -> Manifest:
    """Write manifest.json; return the manifest with its digest."""
    manifest = replace(draft, digest=digest(draft))
    storage.write(manifest.home, head.NAME, (head_from(manifest).model_dump_json(indent=2) + "\n").encode())
    return manifest


def head_from(manifest: Manifest) -> ManifestHead:
    """Return the content of manifest.json."""
    root = None if manifest.root == manifest.home else manifest.root  # None: the folder can be moved
    values = {name: getattr(manifest, name) for name in HEAD}
    values["fields"] = {name: stats.model_dump(mode="json") for name, stats in manifest.fields.items()}
    return ManifestHead(version=head.VERSION, root=root, rows=manifest.rows_digest, **values)
