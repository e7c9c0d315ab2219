"""Poses of views: how a cloud is turned, stretched, mirrored and moved, as 12 numbers of a box.

A pose is a matrix and a shift, row by row, (3, 4): a point p is seen at M p + t. n: samples.
"""

import numpy as np
from numpy.typing import NDArray

Poses = NDArray[np.float64]  # (..., 12)
SIZE = 12
DRAWS = 12  # for turning, stretching, mirroring and moving three each


def matrices(poses: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(..., 12) -> (..., 3, 3), (..., 3): matrices and shifts"""
    whole = poses.reshape(*poses.shape[:-1], 3, 4)
    return whole[..., :3], whole[..., 3]


def poses(matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Poses:
    """(n, 3, 3), (n, 3) -> (n, 12)"""
    return np.concatenate([matrix, shift[..., None]], axis=-1).reshape(len(matrix), SIZE)


def rotations(about: str, draws: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 3) in [0, 1) -> (n, 3, 3). about: x, y or z, an axis; "any": uniform over all rotations; "none".

    Uniform ones are of quaternions as Shoemake (Graphics Gems III, 1992) draws them.
    """
    if about == "any":
        return _of_quaternions(draws.astype(np.float64))
    result = np.tile(np.eye(3), (len(draws), 1, 1))
    if about != "none":
        angle = 2 * np.pi * draws[:, 0].astype(np.float64)
        axis = "xyz".index(about)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        result[:, first, first] = result[:, second, second] = np.cos(angle)
        result[:, second, first], result[:, first, second] = np.sin(angle), -np.sin(angle)
    return result


def _of_quaternions(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) -> (n, 3, 3)"""
    share, one, two = draws[:, 0], 2 * np.pi * draws[:, 1], 2 * np.pi * draws[:, 2]
    low, high = np.sqrt(1 - share), np.sqrt(share)
    x, y, z, w = low * np.sin(one), low * np.cos(one), high * np.sin(two), high * np.cos(two)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
