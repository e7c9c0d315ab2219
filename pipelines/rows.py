"""Where each sample of a data set lies: 16 bytes a sample, in a file that is read by need and never as a whole.

manifest-samples.npy is an array as numpy writes it, so the row of a sample is found by arithmetic. Behind the array,
where numpy does not look, stands the digest of what it was made for.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines import storage
from selfsup.pipelines.cache import Cache

NAME = "manifest-samples.npy"
ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("label", "<i4")])  # of a member, headers included; -1: no label
PAGE = 2048  # rows of one read
HELD = 640  # pages: 20 MiB, which is all of a data set of 1.3 million samples

Table = NDArray[Any]  # of ROW
Each = Callable[..., Iterable[Any]]  # map, by one thread or several


class Rows:
    """The rows of a data set, as many pages of them held as were asked for last. Safe for threads."""

    def __init__(self, home: str, *, samples: int, digest: str, cache: Cache | None, remedy: str) -> None:
        self._file = storage.opened(home, NAME, remedy=remedy)
        self._samples, self._digest, self._cache, header = samples, digest, cache, _header(samples)
        self._begin, end = len(header), len(header) + samples * ROW.itemsize
        fits = self._file.size == end + len(digest)
        if not fits or self._file.read(0, self._begin) != header or self._file.read(end) != digest.encode():
            raise DataError(f"{self._file.url} belongs to other shards: {remedy}")
        self._page = lru_cache(maxsize=HELD)(self._read)

    def take(self, index: NDArray[np.int64], each: Each = map) -> Table:
        """(n,) sample numbers -> n rows. `each` fetches the pages that hold them."""
        rows = np.empty(len(index), ROW)
        page, place = np.divmod(index, PAGE)
        order = np.argsort(page, kind="stable")
        used, first = np.unique(page[order], return_index=True)
        for table, here in zip(each(self._page, used.tolist()), np.split(order, first)[1:], strict=True):
            rows[here] = table[place[here]]
        return rows

    def _read(self, page: int) -> Table:
        first, last = page * PAGE, min((page + 1) * PAGE, self._samples)
        start, stop = self._begin + first * ROW.itemsize, self._begin + last * ROW.itemsize
        fetch = partial(self._file.read, start, stop)
        if self._cache is None:
            return np.frombuffer(fetch(), ROW)
        with self._cache.piece(f"{self._digest}/rows/{page}", stop - start, fetch) as file:
            return np.frombuffer(file.read(), ROW)


def write_rows(home: str, blocks: Callable[[], Iterable[Table]], *, samples: int, digest: str) -> None:
    def parts() -> Iterator[bytes]:
        yield _header(samples)
        for block in blocks():
            yield block.tobytes()
        yield digest.encode()

    storage.write(home, NAME, parts)


def _header(samples: int) -> bytes:
    sink = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(sink, told)
    return sink.getvalue()
