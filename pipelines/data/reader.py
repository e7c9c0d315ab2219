"""Random access to samples of a data set by their numbers."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from selfsup import modality
from selfsup.modality import Data
from selfsup.pipelines.data import urls
from selfsup.pipelines.data.fetch import MAX_GAP, MAX_GAP_REMOTE, ReadRequest, cached_reads, direct_reads
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.rows import Table

READS, READS_REMOTE = 4, 64  # concurrent; an object store answers each after tens of milliseconds


class Sample(NamedTuple):
    """A field of a sample as it lies in its shard. data: encoded; it and the key are empty where there is none."""

    key: str
    data: Data
    label: int | None


class SampleReader:
    """Random access to a field, or an annotation, of samples by number."""

    def __init__(self, manifest: Manifest, field: str) -> None:
        self.manifest, self._files, field = manifest, manifest.files, modality.member_of(field)
        self._rows, self._column = manifest.table(field)
        self._cached = manifest.digest if field == next(iter(manifest.fields)) else f"{manifest.digest}-{field}"
        self._length = 1 if field in manifest.lacking else manifest.read_options.samples_per_fetch
        self._threads = READS_REMOTE if urls.is_remote(manifest.root) else READS

    def read(self, index: Ints) -> list[Sample]:
        """(n,) sample numbers -> n samples in that order, by few large concurrent reads.

        Raises DataError where a shard cannot be reached, is missing, or is not the one that was indexed.
        """
        if len(index) == 0:
            return []
        assert 0 <= index.min() <= index.max() < self.manifest.num_samples
        index = index if self.manifest.chosen is None else self.manifest.chosen[index]
        with ThreadPoolExecutor(self._threads) as pool:
            rows = self._rows.take(index, self._column, pool.map)
            samples = [Sample("", b"", label if label >= 0 else None) for label in rows["label"].tolist()]
            has = np.flatnonzero(rows["length"] >= 0)
            requests = self._requests(index[has], rows[has])

            def work(share: list[ReadRequest]) -> None:
                for request in share:
                    places = has[request.places]
                    for place, (key, data) in zip(
                        places.tolist(), self._files.fetch(request, rows[places]), strict=True
                    ):
                        samples[place] = samples[place]._replace(key=key, data=data)

            list(pool.map(work, (requests[first :: self._threads] for first in range(self._threads))))
        return samples

    def _requests(self, index: Ints, rows: Table) -> list[ReadRequest]:
        manifest = self.manifest
        if not len(index):
            return []
        shard = manifest.shard(index)
        if manifest.cache is None:
            return direct_reads(index, rows, shard, MAX_GAP_REMOTE if urls.is_remote(manifest.root) else MAX_GAP)
        return cached_reads(
            index,
            shard,
            rows=partial(self._rows.take, column=self._column),
            starts=manifest.starts,
            samples=manifest.counts,
            length=self._length,
            digest=self._cached,
        )
