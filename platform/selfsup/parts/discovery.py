"""Discovery of objects in one image, by the features of its patches alone.

N: patches of a grid of h by w, row by row, D: channels. A box is (left, top, right, bottom) in patches, right and
bottom not included.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import find_objects, label
from sklearn.cluster import DBSCAN

Vectors = NDArray[np.floating]
Box = tuple[int, int, int, int]
Grid = tuple[int, int]

ALIKE, FAINT = 0.2, 1e-5  # TokenCut: cosines that join two patches, and the weight of all other edges
SQUARES = 1, 2, 3, 4, 5  # MOST: sides of the squares over which maps are averaged
STEPS = 2  # MOST: between neighbors
MOST = 0.9  # share of an image that no object fills


def lost(value: Vectors, grid: Grid, *, seeds: int = 100) -> list[Box]:
    """(N, D) -> the box of one object, by LOST.

    Siméoni et al., "Localizing objects with self-supervised transformers and no labels", BMVC 2021, arXiv 2109.14279,
    section 3: the patch that is positively correlated with the fewest others is of an object; those of the `seeds`
    patches with the fewest that correlate with it vote for the rest.
    """
    product = value @ value.T
    few = np.argsort((product > 0).sum(1), kind="stable")[:seeds]
    votes = product[few[product[few[0], few] > 0]].sum(0)
    return _box_of(votes.reshape(grid) > 0, few[0])


def token_cut(value: Vectors, grid: Grid) -> list[Box]:
    """(N, D) -> the box of one object, by TokenCut.

    Wang et al., "Self-supervised transformers for unsupervised object discovery using normalized cut", CVPR 2022, arXiv
    2202.11539, section 3: the second eigenvector of the normalized cut of patches that are alike, halved at its mean;
    the object is on the side of its largest absolute value.
    """
    unit = value / np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
    edges = np.where(unit @ unit.T > ALIKE, 1.0, FAINT)
    degree = np.diag(edges.sum(1))
    vector = eigh(degree - edges, degree, subset_by_index=[1, 1])[1][:, 0]
    seed = np.abs(vector).argmax()
    above = vector > vector.mean()
    return _box_of((above == above[seed]).reshape(grid), seed)


def most(value: Vectors, grid: Grid) -> list[Box]:
    """(N, D) -> the boxes of objects, by MOST: there may be none.

    Rambhatla et al., "MOST: multiple object localization with self-supervised transformers for object discovery", ICCV
    2023, arXiv 2304.05387, section 3, and the authors' code: patches whose map of positive correlations has little
    entropy at most scales are of objects; neighbors among them are of one. Boxes of one row or column, and of nine
    tenths of the image, are dropped.
    """
    product = value @ value.T
    sparse = [number for number in range(len(value)) if _is_sparse(product[number].reshape(grid).clip(0))]
    degree = (product > 0).sum(1)
    boxes = list[Box]()
    for members in _neighbors(np.array(sparse, np.int64), grid):
        seed = members[degree[members].argmin()]
        votes = product[members[product[seed, members] > 0]].sum(0).reshape(grid)
        boxes += _box_of(votes > 0, seed)
    return [box for box in boxes if _is_likely(box, grid)]


def _neighbors(patches: NDArray[np.int64], grid: Grid) -> list[NDArray[np.int64]]:
    """(P,) -> groups of patches that lead to one another by two steps along the grid"""
    if not len(patches):
        return []
    place = np.stack(np.unravel_index(patches, grid), axis=1)
    group = DBSCAN(eps=STEPS, metric="cityblock", min_samples=1).fit(place).labels_
    return [patches[group == number] for number in range(group.max() + 1)]


def _is_sparse(map_: NDArray[np.floating]) -> bool:
    """(h, w) -> whether the values of at least half of its averages over squares have little entropy"""
    sizes = sorted({min(size, *map_.shape) for size in SQUARES})
    maps = [_averages(map_, size) for size in sizes]
    votes = [_entropy(averages) < 1 + math.log2(len(averages)) for averages in maps]
    return 2 * sum(votes) >= len(votes)


def _averages(map_: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """(h, w) -> (h - size + 1, w - size + 1): the mean of each square"""
    windows = np.lib.stride_tricks.sliding_window_view(map_, (size, size))
    means: NDArray[np.floating] = windows.mean((2, 3))
    return means


def _entropy(map_: NDArray[np.floating]) -> float:
    """(h, w) -> bits, of how often each value occurs"""
    share = np.unique(map_, return_counts=True)[1] / map_.size
    return -float((share * np.log2(share)).sum())


def _is_likely(box: Box, grid: Grid) -> bool:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return min(width, height) > 1 and width * height < MOST * grid[0] * grid[1]


def _box_of(mask: NDArray[np.bool_], seed: np.integer) -> list[Box]:
    """(h, w) -> the box of the connected part that holds a patch, if one does"""
    parts, _ = label(mask)
    if not parts.flat[seed]:
        return []
    rows, columns = find_objects(parts)[parts.flat[seed] - 1]
    return [(columns.start, rows.start, columns.stop, rows.stop)]


def overlap(box: Box, others: NDArray[np.floating]) -> NDArray[np.float64]:
    """(4,), (B, 4) -> (B,): intersection over union"""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(1)
    area, areas = (box[2] - box[0]) * (box[3] - box[1]), (others[:, 2:] - others[:, :2]).prod(1)
    share: NDArray[np.float64] = common / (area + areas - common)
    return share
