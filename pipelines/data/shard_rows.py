"""The table of the shards of a data set: a row for each, in the order of their samples."""

import pyarrow as pa
import pyarrow.parquet as pq

from selfsup.errors import DataError
from selfsup.naming import name_problem
from selfsup.pipelines.data import head, storage, urls
from selfsup.pipelines.data.head import ManifestHead

SHARDS = "manifest-shards.parquet"
SHARD_ROW = pa.schema({"name": pa.string(), "samples": pa.int64(), "bytes": pa.int64(), "checksum": pa.string()})
MAX_NAME_BYTES = 1024  # the longest key of an object store


def read_shards(home: str, content: ManifestHead, remedy: str) -> pa.Table:
    """Return the rows of shards in a folder. Raises DataError where they are damaged, or others than the head's."""
    file = pa.BufferReader(storage.read(home, SHARDS, remedy=remedy))
    try:
        # no threads: one that still holds Python's bytes at the interpreter's exit aborts the process
        shards = pq.ParquetFile(file).read(use_threads=False).cast(SHARD_ROW)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{urls.join(home, SHARDS)}: damaged: {str(error).strip()}; {remedy}") from error
    for name in shards["name"].to_pylist():
        if expected := "a name" if name is None else name_problem(name, max_bytes=MAX_NAME_BYTES):
            raise DataError(f"{urls.join(home, SHARDS)}: a shard is called {name!r}; expected {expected}: {remedy}")
    counts = shards["samples"].to_pylist()
    totals = content.num_shards, content.num_samples
    if None in counts or min(counts, default=0) < 1 or (len(counts), sum(counts)) != totals:
        expected = f"with {content.num_samples} samples in {content.num_shards} shards"
        raise DataError(f"{home}: {SHARDS} is not the one that {head.NAME} was written with, {expected}: {remedy}")
    return shards
