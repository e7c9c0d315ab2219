"""The samples of all shards of a data set, in a temporary file until its labels can be numbered."""

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import classes, labels, tars
from selfsup.pipelines.data.rows import ROW, Table

KINDS = ("label", *labels.UNSURE)  # where labels may stand
WAITING = np.dtype([*ROW.descr, *((kind, "<i4") for kind in labels.UNSURE)])  # labels: places among all different ones
BLOCK = 2**20  # rows in memory


class Gathered:
    """rows: of the shards. labels: all different ones of a kind; None where samples hold captions, or nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, dict[str, int] | None] = {kind: {} for kind in KINDS}
        self.rows: list[tuple[Any, ...]] = []
        self.fields: set[str] = set()
        self.unread: list[str] = []  # the first of each shard
        self.num_samples = self.num_unread = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        return {kind: list(places) for kind, places in self._places.items() if places is not None}

    def add(self, scan: tars.Scan) -> None:
        """DataError for more labels than can be classes."""
        table = np.empty(len(scan.samples), WAITING)
        for name in ("start", "length"):
            table[name] = scan.samples[name].to_numpy()
        for kind in KINDS:
            table[kind] = self._placed(kind, scan.samples[kind])
        self._file.write(table.tobytes())
        self.rows.append((scan.name, len(table), scan.size, scan.checksum))
        self.fields |= scan.fields
        self.num_samples += len(table)
        self.num_unread += len(scan.unread)
        self.unread += [f"{scan.name}: {text}" for text in scan.unread[:1]]

    def _placed(self, kind: str, column: pa.ChunkedArray) -> list[int] | int:
        places = self._places[kind]
        if places is None or (kind in labels.UNSURE and column.null_count):
            self._places[kind] = None  # these are captions
            return -1
        found = [-1 if text is None else places.setdefault(text, len(places)) for text in column.to_pylist()]
        if len(places) <= classes.MOST:
            return found
        if kind == "label":
            raise DataError(f"more than {classes.MOST} labels, such as {next(iter(places))!r}: no classes")
        self._places[kind] = None
        return -1

    def read(self, kind: str, numbers: NDArray[np.int32]) -> Iterator[Table]:
        """Rows, block by block. kind: where the labels stand. numbers: of the class of each different one."""
        self._file.seek(0)
        while data := self._file.read(BLOCK * WAITING.itemsize):
            waiting = np.frombuffer(data, WAITING)
            table = np.empty(len(waiting), ROW)
            for name in ("start", "length"):
                table[name] = waiting[name]
            table["label"] = np.append(numbers, -1)[waiting[kind]]
            yield table
