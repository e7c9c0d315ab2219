"""Features as stages wrote them, and arrays of them, filled in the order of the data set from blocks in any order."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.sealed import damage

READ_BATCH = 256
ZEROS = bytes(2**20)


def written(folder: Path) -> pyarrow.dataset.Dataset:
    """Return the features in the folder of a stage. Raises DataError where a file is damaged or missing."""
    if reason := damage(folder / "features"):
        raise DataError(f"{folder / 'features'}: {reason}; remove {folder} and run the spec again: it is made anew")
    return pyarrow.dataset.dataset(folder / "features")


def blocks(stored: pyarrow.dataset.Dataset, *columns: str) -> Iterator[pa.RecordBatch]:
    """Yield these columns a block of rows at a time, so that few lie in memory at once."""
    options = {"batch_size": READ_BATCH, "batch_readahead": 1, "fragment_readahead": 1}
    yield from stored.to_batches(list(columns), **options)


def write(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of features to a file one by one, so that few lie in memory at once; none of them: no file."""
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def mapped(shape: tuple[int, ...], folder: Path, dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """Return an array to fill, of 4 bytes a number, perhaps more than memory holds: in a file that ends with it."""
    if math.prod(shape) == 0:  # no file of no length is mapped
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(math.ceil(4 * math.prod(shape) / len(ZEROS))):
            file.write(ZEROS)  # a full disk raises here; where a mapped file has holes, it ends the process later
        file.flush()
        return np.memmap(file, dtype, "r+", shape=shape)


def places_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(B,), sorted (N,) -> the places in ids of those that are there, (K,), and which these are, (B,)"""
    place = np.searchsorted(ids, wanted)
    known = place < len(ids)
    known[known] = ids[place[known]] == wanted[known]
    return place[known], known
