"""A few samples of each class: the splits of low-shot and semi-supervised evaluations. No torch."""

import numpy as np
from numpy.typing import NDArray


def shared(share: float, labelled: int, classes: int) -> int:
    """Return how many samples of each class a share of the labelled ones is."""
    return round(share * labelled / classes)


def draw(label: NDArray[np.int64], number: int, splits: int, seed: int) -> list[NDArray[np.int64]]:
    """(N,) -> the rows of each split: `number` of each class, in no two splits.

    A class with fewer samples than all splits take together repeats them, and gives no sample twice to one split.
    """
    order = np.random.default_rng(seed).permutation(len(label))
    members = np.split(order[np.argsort(label[order], kind="stable")], np.bincount(label).cumsum()[:-1])
    return [
        np.concatenate([rows[(start + np.arange(min(number, len(rows)))) % len(rows)] for rows in members if len(rows)])
        for start in range(0, splits * number, number)
    ]
