"""A temporary file that holds the samples of all shards of a data set until its labels can be numbered."""

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import classes, labels, tars
from selfsup.pipelines.data.rows import ROW, Table

KINDS = ("label", *labels.UNSURE)  # columns of labels
SPOOLED = np.dtype([*ROW.descr, *((kind, "<i4") for kind in labels.UNSURE)])  # a label as its number in the vocabulary
BLOCK = 2**20  # rows in memory


class SampleSpool:
    """Samples with provisional labels, numbered in order of appearance per kind of label.

    rows: of the shards, as in manifest.SHARD_ROW. fields: of all samples. unread: the first unreadable label of each
    shard.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._vocabularies: dict[str, dict[str, int] | None] = {kind: {} for kind in KINDS}  # None: not labels
        self.rows: list[tuple[Any, ...]] = []
        self.fields: set[str] = set()
        self.unread: list[str] = []
        self.num_samples = self.num_unread = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        """Return the distinct labels of each kind that may be labels."""
        return {kind: list(vocabulary) for kind, vocabulary in self._vocabularies.items() if vocabulary is not None}

    def add(self, scan: tars.ShardScan) -> None:
        """Append the samples of a shard. Raises DataError for more distinct labels than classes are possible."""
        table = np.empty(len(scan.samples), SPOOLED)
        for name in ("start", "length"):
            table[name] = scan.samples[name].to_numpy()
        for kind in KINDS:
            table[kind] = self._numbers(kind, scan.samples[kind])
        self._file.write(table.tobytes())
        self.rows.append((scan.name, len(table), scan.size, scan.checksum))
        self.fields |= scan.fields
        self.num_samples += len(table)
        self.num_unread += len(scan.unread)
        self.unread += [f"{scan.name}: {text}" for text in scan.unread[:1]]

    def _numbers(self, kind: str, column: pa.ChunkedArray) -> list[int] | int:
        """Return the number of each label in the vocabulary of its kind; -1 for none."""
        vocabulary = self._vocabularies[kind]
        if vocabulary is None or (kind in labels.UNSURE and column.null_count):
            self._vocabularies[kind] = None  # captions
            return -1
        numbers = [-1 if text is None else vocabulary.setdefault(text, len(vocabulary)) for text in column.to_pylist()]
        if len(vocabulary) <= classes.MAX_CLASSES:
            return numbers
        if kind == "label":
            example = next(iter(vocabulary))
            raise DataError(f"more than {classes.MAX_CLASSES} distinct labels, such as {example!r}; expected classes")
        self._vocabularies[kind] = None
        return -1

    def read(self, kind: str, classes: NDArray[np.int32]) -> Iterator[Table]:
        """Yield rows in blocks. kind: the column of labels. classes: (labels,) the class of each distinct label."""
        self._file.seek(0)
        while data := self._file.read(BLOCK * SPOOLED.itemsize):
            spooled = np.frombuffer(data, SPOOLED)
            table = np.empty(len(spooled), ROW)
            for name in ("start", "length"):
                table[name] = spooled[name]
            table["label"] = np.append(classes, -1)[spooled[kind]]
            yield table
