"""Writing of manifests: the tables first, then the head, which completes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from selfsup import modality
from selfsup.pipelines.data import annotation, head, storage
from selfsup.pipelines.data.head import ManifestHead
from selfsup.pipelines.data.manifest import HEAD, Manifest, digest
from selfsup.pipelines.data.rows import NAME as SAMPLES
from selfsup.pipelines.data.rows import RowsSummary, Table, beside_name, write_rows
from selfsup.pipelines.data.shard_rows import SHARD_ROW, SHARDS


def write_tables(
    home: str,
    shards: pa.Table,
    blocks: Callable[[Sequence[str]], Iterable[Table]],
    parts: Sequence[str],
    beside: Mapping[str, str],
) -> tuple[RowsSummary, dict[str, str]]:
    """Write the rows of shards, and those of samples; `write_head` completes the manifest.

    blocks: names of parts -> rows of these. parts: those of every sample. beside: what has a file of its own -> its
    part. -> what was written of the parts, and the digest of each of those files.
    """
    samples = sum(shards["samples"].to_pylist())
    summary = write_rows(home, partial(blocks, parts), samples=samples, fields=len(parts))
    others = {
        name: write_rows(home, partial(blocks, [part]), samples=samples, fields=1, name=beside_name(name))
        for name, part in beside.items()
    }
    sink = pa.BufferOutputStream()
    pq.write_table(shards.cast(SHARD_ROW), sink)
    storage.write(home, SHARDS, sink.getvalue().to_pybytes())
    return summary, {name: other.digest for name, other in others.items()}


def remove_tables(home: str) -> None:
    """Remove the tables of an incomplete manifest, one without manifest.json."""
    if head.NAME not in storage.list_files(home, suffix=head.NAME):
        storage.remove(home, SHARDS)
        storage.remove(home, SAMPLES)
        remove_beside(home, {*modality.names(), *modality.companions(), *annotation.SUFFIXES})


def remove_beside(home: str, names: Iterable[str]) -> None:
    """Remove the tables of what lies beside samples."""
    for name in names:
        storage.remove(home, beside_name(name))


def write_head(draft: Manifest) -> Manifest:
    """Write manifest.json; return the manifest with its digest."""
    manifest = replace(draft, digest=digest(draft))
    storage.write(manifest.home, head.NAME, (head_from(manifest).model_dump_json(indent=2) + "\n").encode())
    return manifest


def head_from(manifest: Manifest) -> ManifestHead:
    """Return the content of manifest.json."""
    root = None if manifest.root == manifest.home else manifest.root  # None: the folder can be moved
    values = {name: getattr(manifest, name) for name in HEAD}
    for part in ("fields", "readings"):
        values[part] = {name: stats.model_dump(mode="json") for name, stats in values[part].items()}
    return ManifestHead(version=head.VERSION, root=root, rows=manifest.rows_digest, **values)
