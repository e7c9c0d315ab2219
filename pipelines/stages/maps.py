"""Maps of the samples of an evaluation, as dense protocols read them beside tokens."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data import annotation
from selfsup.pipelines.data.manifest import Manifest, SampleReader

BATCH = 256  # samples that are read at once


class MapSource(NamedTuple):
    """The maps of two splits. name: of the annotation. size: pixels a side of the images that the encoder sees."""

    name: str
    splits: tuple[Manifest, Manifest]
    size: int

    @property
    def dtype(self) -> type[np.generic]:
        return np.float32 if self.name == "depth" else np.int32

    def side(self, tokens: int) -> int:
        """Return the pixels a side of maps: of the images, less what so many tokens cannot share alike."""
        grid = math.isqrt(tokens)
        return grid * max(1, self.size // grid)

    def read(self, ids: NDArray[np.int64], room: NDArray[Any]) -> int:
        """Fill (N, S, S) with the maps of samples, by number, validation after training; return the largest value + 1.

        Raises DataError where one cannot be read.
        """
        first, most = self.splits[0].num_samples, -1
        for split, manifest in enumerate(self.splits):
            reader = SampleReader(manifest, self.name)
            places = np.flatnonzero((ids >= first) == split)
            for rows in np.split(places, range(BATCH, len(places), BATCH)):
                for row, sample in zip(rows, reader.read(ids[rows] - split * first), strict=True):
                    room[row] = annotation.read(self.name, sample.data, room.shape[1], sample.key)
                    most = max(most, int(room[row].max()))
        return most + 1
