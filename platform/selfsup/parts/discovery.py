"""Discovery of an object in one image, by the features of its patches alone.

N: patches of a grid of h by w, row by row, D: channels. A box is (left, top, right, bottom) in patches, right and
bottom not included.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import find_objects, label

Vectors = NDArray[np.floating]
Box = tuple[int, int, int, int]

FOREGROUND, FAINT = 0.2, 1e-5  # TokenCut: cosines that join two patches, and the weight of all other edges


def lost(value: Vectors, grid: tuple[int, int], *, seeds: int = 100) -> Box:
    """(N, D) -> the box of the object by LOST.

    Siméoni et al., "Localizing objects with self-supervised transformers and no labels", BMVC 2021, arXiv 2109.14279,
    section 3: the patch that is positively correlated with the fewest others is of an object; those of the `seeds`
    patches with the fewest that correlate with it vote for the rest.
    """
    product = value @ value.T
    degree = (product > 0).sum(1)
    few = np.argsort(degree, kind="stable")[:seeds]
    alike = few[product[few[0], few] >= 0]
    return _box_of((product[alike].sum(0) >= 0).reshape(grid), int(few[0]))


def token_cut(value: Vectors, grid: tuple[int, int]) -> Box:
    """(N, D) -> the box of the object by TokenCut.

    Wang et al., "Self-supervised transformers for unsupervised object discovery using normalized cut", CVPR 2022, arXiv
    2202.11539, section 3: the second eigenvector of the normalized cut of patches that are alike, halved at its mean;
    the object is on the side of its largest absolute value.
    """
    unit = value / np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
    edges = np.where(unit @ unit.T > FOREGROUND, 1.0, FAINT)
    degree = np.diag(edges.sum(1))
    vector = eigh(degree - edges, degree, subset_by_index=[1, 1])[1][:, 0]
    seed = int(np.abs(vector).argmax())
    above = vector > vector.mean()
    return _box_of((above if above[seed] else ~above).reshape(grid), seed)


def _box_of(mask: NDArray[np.bool_], seed: int) -> Box:
    """(h, w) -> the box of the connected part that holds a patch, or of that patch alone"""
    place = np.unravel_index(seed, mask.shape)
    parts, _ = label(mask)
    if not parts[place]:
        return int(place[1]), int(place[0]), int(place[1]) + 1, int(place[0]) + 1
    rows, columns = find_objects(parts)[parts[place] - 1]
    return columns.start, rows.start, columns.stop, rows.stop


def overlap(box: Box, others: NDArray[np.floating]) -> NDArray[np.float64]:
    """(4,), (B, 4) -> (B,): intersection over union"""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(1)
    area, areas = (box[2] - box[0]) * (box[3] - box[1]), (others[:, 2:] - others[:, :2]).prod(1)
    share: NDArray[np.float64] = common / (area + areas - common)
    return share
