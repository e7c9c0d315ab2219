"""Clouds of solids, sampled as a depth camera would see them from one side, turned at random: no scans.

A table of them shows whether a protocol works, and how objectives differ on simple shapes, not what they do on scans.

bundled://solids/train   960 clouds of 1024 points, 120 of each of eight solids
bundled://solids/val     320 others, 40 of each

A class is the shape of a solid, such as "cone". What changes within one, and says nothing of it: its proportions, how
it is turned, how much of its back is missing, and noise. A cloud is a pure function of its split and number.
"""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.photographs import SPLITS
from selfsup.pipelines.modalities.clouds.poses import rotations

NUMBER = {"train": 120, "val": 40}  # of a class
POINTS = 1024
DRAWN = 8 * POINTS  # on the whole surface, of which the camera sees a part
ROUND = 48  # sides of what is round
PROPORTIONS = (0.5, 1.0)  # of each axis
TUBE = (0.2, 0.5)  # of the radius of a torus
CELL = 1 / 16  # side of what hides what is behind it
DEPTH = 0.15  # how far behind the front of a cell points are still seen
HIDDEN = 0.5  # share of clouds of which the camera sees one side alone
NOISE = (0.0, 0.02)  # deviation

Surface = NDArray[np.float64]  # (T, 3, 3): triangles
Cloud = NDArray[np.float64]  # (n, 3)


def _arc(start: float, stop: float) -> list[tuple[float, float]]:
    """Return radii and heights along a circle, of angles in quarters of it."""
    angle = np.pi / 2 * np.linspace(start, stop, ROUND // 2)
    return list(zip(np.cos(angle).tolist(), np.sin(angle).tolist(), strict=True))


PILLAR = [(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)]
SPIRE = [(0.0, -1.0), (1.0, -1.0), (0.0, 1.0)]
SOLIDS = {  # radii and heights of the outline, and how many sides there are about the axis
    "bowl": (_arc(-1, 0), ROUND),
    "box": (PILLAR, 4),
    "cone": (SPIRE, ROUND),
    "cylinder": (PILLAR, ROUND),
    "ellipsoid": (_arc(-1, 1), ROUND),
    "prism": (PILLAR, 3),
    "pyramid": (SPIRE, 4),
    "torus": (_arc(0, 4), ROUND),
}


def samples(split: str) -> Iterator[tuple[str, bytes]]:
    """Yield the class and the .npy of each cloud of a split."""
    titles = [*SOLIDS]
    for number in range(NUMBER[split] * len(titles)):
        title, sink = titles[number % len(titles)], io.BytesIO()
        np.save(sink, cloud(title, np.random.default_rng((SPLITS.index(split), number))).astype(np.float32))
        yield title, sink.getvalue()


def cloud(title: str, draw: np.random.Generator) -> Cloud:
    """-> (POINTS, 3)"""
    [turn] = rotations("any", draw.random((1, 3)))
    points = on(surface(title, draw), DRAWN, draw) @ turn.T
    if draw.random() < HIDDEN:
        points = points[in_sight(points)]
    chosen = points[draw.permutation(len(points))[np.arange(POINTS) % len(points)]]
    return np.asarray(chosen + draw.uniform(*NOISE) * draw.standard_normal(chosen.shape))


def surface(title: str, draw: np.random.Generator) -> Surface:
    """-> (T, 3, 3): a solid of random proportions, upright"""
    outline, sides = SOLIDS[title]
    radius, height = np.array(outline).T
    if title == "torus":
        tube = draw.uniform(*TUBE)
        radius, height = 1 + tube * radius, tube * height
    return turned(radius, height, sides) * draw.uniform(*PROPORTIONS, 3)


def turned(radius: NDArray[np.float64], height: NDArray[np.float64], sides: int) -> Surface:
    """(m,), (m,) -> (T, 3, 3): the surface of what an outline sweeps about the third axis, in so many steps"""
    angle = 2 * np.pi * np.arange(sides + 1) / sides
    corner = np.stack([np.outer(np.cos(angle), radius), np.outer(np.sin(angle), radius)], axis=2)
    corner = np.concatenate([corner, np.broadcast_to(height[:, None], (sides + 1, len(height), 1))], axis=2)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    return np.concatenate([np.stack(part, axis=2).reshape(-1, 3, 3) for part in ((a, b, c), (a, c, d))])


def on(triangles: Surface, number: int, draw: np.random.Generator) -> Cloud:
    """-> (number, 3): points uniform over a surface"""
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area = np.linalg.norm(np.cross(first, second), axis=1)
    chosen = draw.choice(len(triangles), number, p=area / area.sum())
    along = draw.random((number, 2))
    along = np.where(along.sum(axis=1, keepdims=True) > 1, 1 - along, along)
    return np.asarray(triangles[chosen, 0] + along[:, :1] * first[chosen] + along[:, 1:] * second[chosen])


def in_sight(points: Cloud) -> NDArray[np.bool_]:
    """(n, 3) -> (n,): which points a camera far up the third axis sees, by a buffer of depth"""
    place = np.floor(points[:, :2] / CELL).astype(np.int64)
    _, cell = np.unique(place, axis=0, return_inverse=True)
    front = np.full(cell.max() + 1, -np.inf)
    np.maximum.at(front, cell, points[:, 2])
    return np.asarray(points[:, 2] >= front[cell] - DEPTH)
