"""Solids that rays meet: boxes, spheres and cylinders on a floor, each a unit shape that is scaled, turned and moved.

Only sums, products, quotients and square roots, which every processor rounds alike. Axes: x right, y up, z ahead, in
meters. n: rays or points; an array of them is (3, n).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (3, n)
Values = NDArray[np.float64]  # (n,)
Turn = tuple[float, float]  # cosine and sine of an angle
Interval = tuple[Values, Values]  # where a ray is inside: it enters, and leaves; nowhere if it leaves before


class Solid(NamedTuple):
    """A solid. shape: of UNIT. size: half of its extent along each axis, before it is turned about the vertical one."""

    shape: str
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    turn: Turn = (1.0, 0.0)

    @property
    def radius(self) -> float:
        """Return the radius of a ball that holds it."""
        return float(np.sqrt(sum(side * side for side in self.size)))


def meet(solid: Solid, origin: Points, direction: Points) -> Values:
    """Return the distance at which each ray enters a solid from outside; infinity where it does not.

    origin: (3, n) or (3, 1). direction: of unit length.
    """
    distance = np.full(direction.shape[1], np.inf)
    near = np.flatnonzero(_near(solid, origin, direction))
    start = origin if origin.shape[1] == 1 else origin[:, near]
    ray = _local(solid, start - _column(solid.center)), _local(solid, direction[:, near])
    with np.errstate(divide="ignore", invalid="ignore"):  # rays along a face
        enters, leaves = UNIT[solid.shape](*ray)
        distance[near] = np.where((enters <= leaves) & (enters > 0), enters, np.inf)
    return distance


def surface(solid: Solid, points: Points) -> tuple[Points, Points]:
    """(3, n), points on a solid -> (3, n), the same from its center; (3, n), unit normals; both along its own axes"""
    own = turned(solid.turn, points - _column(solid.center))
    normal = NORMAL[solid.shape](own / _column(solid.size)) / _column(solid.size)
    return own, normal / length(normal)


def turned(turn: Turn, vectors: Points) -> Points:
    """Return vectors along axes that are turned about the vertical one."""
    (cosine, sine), (x, y, z) = turn, vectors
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z])


def length(vectors: Points) -> Values:
    return np.sqrt(dot(vectors, vectors))


def dot(one: Points, other: Points) -> Values:
    """(3, n), (3, n) -> (n,): written out, since a matrix product rounds as the processor likes"""
    total: Values = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return total


def _near(solid: Solid, origin: Points, direction: Points) -> NDArray[np.bool_]:
    """-> (n,): whether a ray passes through the ball around a solid, which is cheap to tell"""
    to_center = _column(solid.center) - origin
    along = dot(to_center, direction)
    near: NDArray[np.bool_] = dot(to_center, to_center) - along * along < solid.radius**2
    return near


def _column(vector: tuple[float, float, float]) -> Points:
    return np.array(vector)[:, None]


def _local(solid: Solid, vectors: Points) -> Points:
    return turned(solid.turn, vectors) / _column(solid.size)


def _slab(start: Values, step: Values) -> Interval:
    """Return where a coordinate is between -1 and 1."""
    one, other = (-1 - start) / step, (1 - start) / step
    return np.minimum(one, other), np.maximum(one, other)


def _round(start: Points, step: Points) -> Interval:
    """Return where the squares of these coordinates, (2 or 3, n), add up to less than 1."""
    a, b, c = (step * step).sum(0), (start * step).sum(0), (start * start).sum(0) - 1
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    return np.where(discriminant > 0, (-b - root) / a, np.inf), np.where(discriminant > 0, (root - b) / a, -np.inf)


def _both(one: Interval, other: Interval) -> Interval:
    return np.maximum(one[0], other[0]), np.minimum(one[1], other[1])


def _box(start: Points, step: Points) -> Interval:
    x, y, z = (_slab(*axis) for axis in zip(start, step, strict=True))
    return _both(_both(x, y), z)


def _cylinder(start: Points, step: Points) -> Interval:
    return _both(_round(start[::2], step[::2]), _slab(start[1], step[1]))


def _box_normal(unit: Points) -> Points:
    face = np.abs(unit).argmax(0) == np.arange(3)[:, None]
    return np.where(face, np.sign(unit), 0.0)


def _cylinder_normal(unit: Points) -> Points:
    x, y, z = unit
    is_lid = y * y > x * x + z * z  # on the side this is 1, on a lid at most 1
    return np.where(is_lid, np.stack([0 * x, np.sign(y), 0 * z]), np.stack([x, 0 * y, z]))


UNIT = {"box": _box, "sphere": _round, "cylinder": _cylinder}
NORMAL = {"box": _box_normal, "sphere": lambda unit: unit, "cylinder": _cylinder_normal}
