"""Parts of a data set: all samples with a label, or as many of each class, or those that have what others lack."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.few import draw


class Subset(NamedTuple):
    """Labelled samples of a data set. per_class: how many of each class, drawn by the seed; None: all.

    fields: of Manifest.lacking; samples that have all of these instead, labelled or not.
    """

    per_class: int | None = None
    seed: int = 0
    fields: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Return it as a part of keys."""
        if self.fields:
            return {"subset": {"having": list(self.fields)}}
        drawn = {"per_class": self.per_class, "seed": self.seed} if self.per_class else "labelled"
        return {"subset": drawn}

    def numbers(self, label: NDArray[np.integer]) -> NDArray[np.int64]:
        """(N,) classes, -1 without -> the numbers of its samples, sorted. A class may have fewer than are asked for."""
        labelled = np.flatnonzero(label >= 0)
        if self.per_class is None:
            return labelled
        [rows] = draw(label[labelled].astype(np.int64), self.per_class, 1, self.seed)
        return np.sort(labelled[rows])
