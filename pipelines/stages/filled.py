"""Arrays of features, filled in the order of the data set from blocks in any order."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ZEROS = bytes(2**20)


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
