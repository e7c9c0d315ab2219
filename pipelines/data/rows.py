"""The index of the samples of a data set: a row per sample, in a file that is read page by page.

A row holds the place of each field of a sample, and its label: 16 bytes for one field, 12 more for each other one.

manifest-samples.npy is a NumPy array, so the row of a sample is found by arithmetic. Behind the array, where NumPy does
not look, stands a checksum of each page, which is verified whenever the page is read.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import storage
from selfsup.pipelines.data.cache import Cache

NAME = "manifest-samples.npy"
ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])  # of a member with its headers; -1: no label
PAGE = 2048  # rows of one read
MAX_PAGES = 640  # in memory: 20 MiB, all pages of a data set of 1.3 million samples
CHECKSUM_BYTES = 8  # per page

Table = NDArray[Any]  # of ROW, or of `row(fields)`
Map = Callable[..., Iterable[Any]]  # the built-in, or that of a pool of threads


def row(fields: int) -> np.dtype[Any]:
    """Return the type of a row of so many fields: that of one field, with a start and a length for each."""
    if fields == 1:
        return ROW
    return np.dtype([("start", "<i8", (fields,)), ("length", "<i4", (fields,)), ("label", "<i4")])


class RowsSummary(NamedTuple):
    """A summary of the rows as written. digest: 32 hex digits over all of them."""

    digest: str
    num_labelled: int


class SampleIndex:
    """The rows of a data set; the pages used last stay in memory. Safe for threads.

    Raises DataError where the rows do not match `digest`, or a label is not below `classes`.
    """

    def __init__(
        self,
        home: str,
        name: str = NAME,
        *,
        samples: int,
        fields: int,
        classes: int,
        digest: str,
        cache: Cache | None,
        remedy: str,
    ) -> None:
        self._file, self._row = storage.open_file(home, name, remedy=remedy), row(fields)
        self._samples, self._classes, self._digest, self._cache = samples, classes, digest, cache
        self._remedy, header, pages = remedy, _header(samples, self._row), -(-samples // PAGE)
        self._begin, end = len(header), len(header) + samples * self._row.itemsize
        fits = self._file.size == end + pages * CHECKSUM_BYTES
        if not fits or self._file.read(0, self._begin) != header or _digest(sums := self._file.read(end)) != digest:
            raise DataError(f"{self._file.url} belongs to other shards: {remedy}")
        self._sums, self.fits_in_memory = sums, pages <= MAX_PAGES
        self._page = lru_cache(maxsize=MAX_PAGES)(self._read)

    def take(self, index: NDArray[np.int64], column: int = 0, map_: Map = map) -> Table:
        """(n,) sample numbers -> (n,) of ROW, of a field. column: its number. map_: fetches the pages with the rows."""
        rows = np.empty(len(index), self._row)
        page, place = np.divmod(index, PAGE)
        order = np.argsort(page, kind="stable")
        used, first = np.unique(page[order], return_index=True)
        for table, positions in zip(map_(self._page, used.tolist()), np.split(order, first)[1:], strict=True):
            rows[positions] = table[place[positions]]
        return _of_field(rows, column)

    def _read(self, page: int) -> Table:
        first, last = page * PAGE, min((page + 1) * PAGE, self._samples)
        start, stop = self._begin + first * self._row.itemsize, self._begin + last * self._row.itemsize
        fetch = partial(self._file.read, start, stop)
        data = fetch() if self._cache is None else self._cached(page, stop - start, fetch)
        table = np.frombuffer(data, self._row)
        if _sum(data) != self._sums[page * CHECKSUM_BYTES : (page + 1) * CHECKSUM_BYTES]:
            raise DataError(f"{self._file.url}: samples {first} to {last - 1} are not as indexed: {self._remedy}")
        if table["label"].min() < -1 or table["label"].max() >= self._classes:
            problem = f"samples {first} to {last - 1} have labels beyond {self._classes} classes"
            raise DataError(f"{self._file.url}: {problem}: {self._remedy}")
        return table

    def _cached(self, page: int, size: int, fetch: Callable[[], bytes]) -> bytes:
        assert self._cache is not None
        [data] = self._cache.read(f"{self._digest}/rows/{page}", size, [(0, size)], fetch)
        return data


def _of_field(rows: Table, column: int) -> Table:
    """Return rows of several fields as those of one."""
    if rows.dtype == ROW:
        return rows
    own = np.empty(len(rows), ROW)
    own["start"], own["length"], own["label"] = rows["start"][:, column], rows["length"][:, column], rows["label"]
    return own


def beside_name(field: str) -> str:
    """Return the file of the index of a companion."""
    return f"manifest-{field}.npy"


def write_rows(
    home: str, blocks: Callable[[], Iterable[Table]], *, samples: int, fields: int, name: str = NAME
) -> RowsSummary:
    """Write the index. blocks: of whole pages, except the last."""
    sums: list[bytes] = []
    labelled: list[int] = []

    def parts() -> Iterator[bytes]:
        sums.clear()  # a retried upload counts once
        labelled.clear()
        yield _header(samples, row(fields))
        for block in blocks():
            labelled.append(int((block["label"] >= 0).sum()))
            sums.extend(_sum(block[first : first + PAGE].tobytes()) for first in range(0, len(block), PAGE))
            yield block.tobytes()
        yield b"".join(sums)

    storage.write(home, name, parts)
    return RowsSummary(_digest(b"".join(sums)), sum(labelled))


def _sum(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=CHECKSUM_BYTES).digest()


def _digest(sums: bytes) -> str:
    return hashlib.blake2b(sums, digest_size=16).hexdigest()


def _header(samples: int, row: np.dtype[Any]) -> bytes:
    sink = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(sink, fields)
    return sink.getvalue()
