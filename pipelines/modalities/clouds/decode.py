"""Clouds in the files that hold them: coordinates, and what else is known of each point.

N: points, C: their values.
"""

import io
import zipfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.modality import Data, DecodeError
from selfsup.pipelines.modalities.clouds import ply

AXES = ("x", "y", "z")
NORMALS = ("nx", "ny", "nz")
COLORS = ("red", "green", "blue")
FIELDS = ("points", "normals", "colors")  # arrays of an .npz
LIFTED = {"depth", "intrinsics"}  # those of a depth map

Values = NDArray[np.float64]  # (N, C)


class PointCloud(NamedTuple):
    """A cloud. values: (N, C), coordinates first. has_normals: whether the next three are normals."""

    values: Values
    has_normals: bool


def decode(data: Data) -> PointCloud:
    """Return a cloud. Raises DecodeError for what is none: no point, fewer than three values, or no finite ones."""
    content = bytes(data)
    try:
        parts, has_normals = _ply(content) if content[:3] == b"ply" else _arrays(content)
        values = np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1)
    except (ValueError, OSError, EOFError, TypeError, MemoryError, OverflowError, zipfile.BadZipFile) as error:
        raise DecodeError(f"a damaged cloud, or none: {error}") from error
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < len(AXES) or not np.isfinite(values).all():
        raise DecodeError(f"expected finite numbers, (points, 3 or more), not an array of {values.shape}")
    return PointCloud(values, has_normals)


def length(data: Data) -> int:
    """Return the number of points, of a PLY by its header. Raises DecodeError."""
    content = bytes(data[: ply.LONGEST])
    if content[:3] != b"ply":
        return len(decode(data).values)
    try:
        return ply.header(content).points
    except ValueError as error:
        raise DecodeError(f"a damaged cloud: {error}") from error


def centered(values: Values) -> Values:
    """(N, C) -> (N, C): coordinates from the middle of all points, the farthest of which is at distance 1"""
    xyz = values[:, : len(AXES)] - values[:, : len(AXES)].mean(axis=0)
    radius = np.sqrt((xyz**2).sum(axis=1).max())
    return np.concatenate([xyz / (radius or 1), values[:, len(AXES) :]], axis=1)


def lifted(depth: NDArray[Any], intrinsics: NDArray[Any]) -> Values:
    """(H, W), along the camera's axis, (3, 3) -> (N, 3): where pixels of known depth are: x right, y down, z ahead.

    The first pixel reaches from 0 to 1. What is not finite, or not above zero, is unknown. Raises ValueError for other
    shapes, and intrinsics that cannot be undone.
    """
    if depth.ndim != 2 or intrinsics.shape != (3, 3):
        raise ValueError(f"depth {depth.shape} and intrinsics {intrinsics.shape}; expected (H, W) and (3, 3)")
    row, column = np.nonzero(np.isfinite(depth) & (depth > 0))
    places = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
    return np.asarray((np.linalg.solve(intrinsics, places) * depth[row, column]).T, np.float64)


def _ply(content: bytes) -> tuple[list[NDArray[np.generic]], bool]:
    """Return coordinates, normals and colors in [0, 1], as far as they are there, and whether there are normals."""
    table = ply.vertices(content)
    names = table.dtype.names or ()
    if not {*AXES} <= {*names}:
        raise ValueError(f"vertices of {', '.join(names)}, without x, y and z")
    has_normals, has_colors = ({*wanted} <= {*names} for wanted in (NORMALS, COLORS))
    parts = [np.stack([table[name] for name in AXES], axis=1)]
    if has_normals:
        parts.append(np.stack([table[name] for name in NORMALS], axis=1))
    if has_colors:
        parts.append(_shares(np.stack([table[name] for name in COLORS], axis=1)))
    return parts, has_normals


def _arrays(content: bytes) -> tuple[list[NDArray[np.generic]], bool]:
    """Return the one array of a file, those of FIELDS, or what those of LIFTED show, and whether there are normals."""
    if not content.startswith((b"\x93NUMPY", b"PK")):
        raise ValueError("neither PLY nor NumPy")
    file = np.load(io.BytesIO(content), allow_pickle=False)
    if isinstance(file, np.ndarray):
        return [file], False
    if len(file.files) == 1:
        return [file[file.files[0]]], False
    if {*file.files} == LIFTED:
        return [lifted(file["depth"], file["intrinsics"])], False
    if "points" not in file.files or {*file.files} - {*FIELDS}:
        raise ValueError(f"arrays {', '.join(file.files)}; expected one, {', '.join(FIELDS)}, or depth and intrinsics")
    parts = {name: file[name] for name in FIELDS if name in file.files}
    return [_shares(part) if name == "colors" else part for name, part in parts.items()], "normals" in parts


def _shares(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers of 8 or 16 bits as shares of their largest; others as they are."""
    if values.dtype.kind != "u":
        return values
    return np.asarray(values / np.iinfo(values.dtype).max)
