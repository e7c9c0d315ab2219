"""Maps of the samples of an evaluation, as dense protocols read them beside tokens."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.evaluator import DENSE
from selfsup.pipelines.data import annotation
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader

BATCH = 256  # samples that are read at once


class MapSource(NamedTuple):
    """The maps of two splits. target: as of Evaluator. size: pixels a side of the images that the encoder sees.

    shared: whether tokens share the pixels of a map alike.
    """

    target: str
    splits: tuple[Manifest, Manifest]
    size: int
    shared: bool = True

    @property
    def dtype(self) -> type[np.generic]:
        return annotation.dtype(DENSE[self.target][0])

    def shape(self, tokens: int) -> tuple[int, ...]:
        """Return (S, S), or (maps, S, S): S is the size of images, less what so many tokens cannot share alike."""
        grid, maps = math.isqrt(tokens) if self.shared else 1, len(DENSE[self.target])
        side = grid * max(1, self.size // grid)
        return (side, side) if maps == 1 else (maps, side, side)

    def read(self, ids: NDArray[np.int64], room: NDArray[Any]) -> int:
        """Fill (N, S, S), or (N, maps, S, S), with the maps of samples, by number, validation after training.

        Return the largest value of the first map + 1. Raises DataError where one cannot be read.
        """
        side = room.shape[-1]
        maps = room.reshape(len(room), -1, side, side)
        for place, name in enumerate(DENSE[self.target]):
            self._fill(name, ids, maps[:, place])
        return max((int(one.max()) for one in maps[:, 0]), default=-1) + 1

    def _fill(self, name: str, ids: NDArray[np.int64], room: NDArray[Any]) -> None:
        first = self.splits[0].num_samples
        for split, manifest in enumerate(self.splits):
            reader = SampleReader(manifest, name)
            places = np.flatnonzero((ids >= first) == split)
            for rows in np.split(places, range(BATCH, len(places), BATCH)):
                for row, sample in zip(rows, reader.read(ids[rows] - split * first), strict=True):
                    room[row] = annotation.read(name, sample.data, room.shape[-1], sample.key)
