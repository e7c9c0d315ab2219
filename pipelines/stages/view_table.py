"""Features of versions of samples on disk, as evaluations read them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.philox import permute
from selfsup.pipelines.stages.filled import READ_BATCH, blocks, mapped, places_of, written


class ViewTable(NamedTuple):
    """The features that a views stage wrote. number: of versions of a sample. chosen: the samples' numbers, sorted.

    first: the number of the split's first sample among those of the embed stage, where train comes before val.
    """

    folder: Path
    number: int
    chosen: NDArray[np.int64]
    first: int = 0

    def read(self, ids: NDArray[np.int64], own: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,), sorted, (N, *F) -> (V, K, *F), of the samples that have versions, mapped from disk.

        ids, own: of the embed stage; the feature of a sample stands for versions that cannot be decoded. Raises
        DataError where a file is damaged or missing.
        """
        stored = written(self.folder)
        rows = np.flatnonzero(np.isin(ids, self.chosen + self.first))
        value = mapped((self.number, len(rows), *own.shape[1:]), self.folder)
        for start in range(0, len(rows), READ_BATCH):
            value[:, start : start + READ_BATCH] = own[rows[start : start + READ_BATCH]]
        for batch in blocks(stored, "id", "view", "feature"):
            place, known = places_of(batch["id"].to_numpy() + self.first, ids[rows])
            feature = batch["feature"].flatten().to_numpy().reshape(len(batch), *own.shape[1:])
            value[batch["view"].to_numpy()[known], place] = feature[known]
        return value


def chosen(samples: int, images: int | None) -> NDArray[np.int64]:
    """Return the numbers of so many samples of a data set, drawn alike for all runs, sorted; None: of all."""
    if images is None or images >= samples:
        return np.arange(samples)
    return np.sort(permute(np.arange(images), samples, seed=0, epoch=0))
