"""A temporary file that holds the samples of all shards of a data set until its labels can be numbered."""

from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from selfsup import modality
from selfsup.errors import DataError
from selfsup.pipelines.data import annotation, classes, labels, tars
from selfsup.pipelines.data.rows import Table, row

KINDS = ("label", *labels.UNSURE)  # columns of labels
BLOCK = 2**20  # rows in memory


class SampleSpool:
    """Samples with provisional labels, numbered in order of appearance per kind of label.

    rows: of the shards, as in shard_rows.SHARD_ROW. members: the kinds of members of all samples. having: modality
    or suffix of an annotation -> how many samples have it. unread: the first unreadable label of each shard.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._parts = file, [*tars.parts()]
        places = [(name, "<i8" if name == "start" else "<i4", (len(self._parts),)) for name in ("start", "length")]
        self._row = np.dtype([*places, *((kind, "<i4") for kind in KINDS)])  # a label as its number in the vocabulary
        self._vocabularies: dict[str, dict[str, int] | None] = {kind: {} for kind in KINDS}  # None: not labels
        self.rows: list[tuple[Any, ...]] = []
        self.members: set[str] = set()
        self.having = dict.fromkeys(self._parts, 0)
        self.unread: list[str] = []
        self.num_samples = self.num_unread = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        """Return the distinct labels of each kind that may be labels."""
        return {kind: list(vocabulary) for kind, vocabulary in self._vocabularies.items() if vocabulary is not None}

    def add(self, scan: tars.ShardScan) -> None:
        """Append the samples of a shard. Raises DataError for more distinct labels than classes are possible."""
        table = np.empty(len(scan.samples), self._row)
        for number, name in enumerate(self._parts):
            places = scan.samples[name].combine_chunks()
            self.having[name] += len(places) - places.null_count
            for part in ("start", "length"):
                table[part][:, number] = pc.fill_null(pc.struct_field(places, part), -1).to_numpy()
        for kind in KINDS:
            table[kind] = self._numbers(kind, scan.samples[kind])
        self._file.write(table.tobytes())
        self.rows.append((scan.name, len(table), scan.size, scan.checksum))
        self.members |= scan.members
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

    @property
    def complete(self) -> list[str]:
        """Return the modalities that all samples have; where there is none, the one that most have."""
        most = max(modality.names(), key=self.having.__getitem__)
        names = [name for name in modality.names() if self.having[name] == self.num_samples] or [most]
        return [name for name in names if not modality.load(name).is_aside] or names

    @property
    def beside(self) -> dict[str, str]:
        """Return what lies beside the modalities of `complete` -> its part of a row.

        Companions, others that are aside or that some samples lack, and annotations that some lack.
        """
        names = {name: name for name in (*modality.companions(), *modality.names())}
        partial = {name: part for name, part in annotation.SUFFIXES.items() if self.having[part] < self.num_samples}
        parts = (partial | names).items()
        return {name: part for name, part in parts if self.having[part] and name not in self.complete}

    @property
    def lacking(self) -> dict[str, int]:
        """Return those of `complete` and `beside` that some samples lack -> how many have none."""
        parts = {name: name for name in self.complete} | self.beside
        return {name: number for name, part in parts.items() if (number := self.num_samples - self.having[part])}

    @property
    def annotations(self) -> tuple[str, ...]:
        """Return the annotations that all samples have."""
        return tuple(name for name, suffix in annotation.SUFFIXES.items() if self.having[suffix] == self.num_samples)

    def read(self, kind: str, classes: NDArray[np.int32], fields: Sequence[str]) -> Iterator[Table]:
        """Yield rows of these modalities, and annotations by their suffixes, in blocks.

        kind: the column of labels. classes: (labels,) the class of each distinct label.
        """
        self._file.seek(0)
        columns = [self._parts.index(name) for name in fields]
        while data := self._file.read(BLOCK * self._row.itemsize):
            spooled = np.frombuffer(data, self._row)
            table = np.empty(len(spooled), row(len(fields)))
            for name in ("start", "length"):
                table[name] = spooled[name][:, columns].reshape(table[name].shape)
            table["label"] = np.append(classes, -1)[spooled[kind]]
            yield table
