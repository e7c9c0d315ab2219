"""A ray caster: pinhole cameras, Lambert's shading with one sun and its shadows, textures, and exact depth.

Every pixel has one surface and one depth, of the ray through its middle; its color is the mean of four rays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.scenes.geometry import Points, Solid, Turn, Values, dot, length, meet, surface, turned
from selfsup.pipelines.modalities.pixels.levels import Pixels

WALL, FLOOR = 0, 1  # surfaces; those after them are the solids
SAMPLES = 2  # rays a side of a pixel, for its color
AMBIENT = 0.35  # share of the light that comes from everywhere
LIFT = 1e-6  # meters above a surface, where rays to the sun begin


class Camera(NamedTuple):
    """A pinhole camera that looks along z. tilt: downwards. focal: in pixels. size: pixels a side."""

    position: tuple[float, float, float]
    tilt: Turn
    focal: float
    size: int

    def rays(self, samples: int = 1) -> Points:
        """-> (3, n): unit directions through every pixel, rows first, or through samples x samples places in each"""
        places = ((np.arange(self.size * samples) + 0.5) / samples - self.size / 2) / self.focal
        down, right = (axis.ravel() for axis in np.meshgrid(places, places, indexing="ij"))
        cosine, sine = self.tilt
        directions = np.stack([right, -cosine * down - sine, cosine - sine * down])
        return directions / length(directions)

    @property
    def origin(self) -> Points:
        return np.array(self.position)[:, None]

    @property
    def intrinsics(self) -> list[list[float]]:
        """-> 3 x 3: from x right, y down, z ahead in meters to pixels, of which the first reaches from 0 to 1"""
        middle = self.size / 2
        return [[self.focal, 0.0, middle], [0.0, self.focal, middle], [0.0, 0.0, 1.0]]

    @property
    def pose(self) -> list[list[float]]:
        """-> 4 x 4: from places in the scene to x right, y down, z ahead of the camera, in meters"""
        (cosine, sine), position = self.tilt, np.array(self.position)
        axes = np.array([[1.0, 0.0, 0.0], [0.0, -cosine, -sine], [0.0, -sine, cosine]])
        rows = np.c_[axes, -(axes * position).sum(1)]
        return [*rows.tolist(), [0.0, 0.0, 0.0, 1.0]]


class Texture(NamedTuple):
    """A square picture that covers surfaces, mirrored at its edges.

    levels: (3, s, s), in [0, 1], then each of half as many texels a side. texel: meters a side of one of the first.
    """

    levels: tuple[Values, ...]
    texel: float

    def at(self, points: Points, normal: Points, footprint: Values) -> Points:
        """(3, n), (3, n), (n,) meters that a ray covers -> (3, n): colors, of the side that a normal points at most"""
        axis = np.abs(normal).argmax(0)
        across, along = np.where(axis == 0, points[2], points[0]), np.where(axis == 1, points[2], points[1])
        level = sum((footprint > self.texel * 2**number).astype(int) for number in range(len(self.levels) - 1))
        color = np.empty_like(points)
        for number, picture in enumerate(self.levels):
            own, texel = level == number, self.texel * 2**number
            side = picture.shape[1]
            row, column = (_mirrored(np.floor(places[own] / texel), side) for places in (along, across))
            color[:, own] = picture[:, row, column]
        return color


class Scene(NamedTuple):
    """A floor, a wall behind, and solids.

    textures: of the wall, the floor, each solid. wall: its z. sun: (3,), towards it, of unit length.
    """

    solids: tuple[Solid, ...]
    textures: tuple[Texture, ...]
    wall: float
    sun: NDArray[np.float64]


class Geometry(NamedTuple):
    """The surface and the depth of every pixel, exactly.

    surface: (H, W), of WALL, FLOOR, solids. depth: (H, W), meters along the camera's axis.
    """

    surface: NDArray[np.uint8]
    depth: Values


def trace(scene: Scene, camera: Camera) -> Geometry:
    """Return the surface and the depth in the middle of every pixel."""
    rays, side = camera.rays(), camera.size
    distance, which = _cast(scene, camera.origin, rays)
    return Geometry(which.astype(np.uint8).reshape(side, side), (distance * _ahead(camera, rays)).reshape(side, side))


def render(scene: Scene, camera: Camera) -> Pixels:
    """-> (H, W, 3)"""
    rays, side = camera.rays(SAMPLES), camera.size
    distance, which = _cast(scene, camera.origin, rays)
    points = camera.origin + distance * rays
    footprint = distance * _ahead(camera, rays) / (camera.focal * SAMPLES)
    colors = np.empty_like(points)
    for number, texture in enumerate(scene.textures):
        own = np.flatnonzero(which == number)
        color, normal = _surface(scene, number, points[:, own], texture, footprint[own])
        colors[:, own] = color * _light(scene, points[:, own], normal)
    shades = colors.reshape(3, side, SAMPLES, side, SAMPLES).sum((2, 4)) / SAMPLES**2
    image: Pixels = np.round(255 * shades.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return image


def _surface(scene: Scene, number: int, points: Points, texture: Texture, footprint: Values) -> tuple[Points, Points]:
    """-> (3, n), colors; (3, n) or (3, 1), unit normals"""
    if number > FLOOR:
        solid = scene.solids[number - FLOOR - 1]
        own, normal = surface(solid, points)
        cosine, sine = solid.turn
        return texture.at(own, normal, footprint), turned((cosine, -sine), normal)
    up = np.array([0.0, 0.0, -1.0] if number == WALL else [0.0, 1.0, 0.0])[:, None]
    return texture.at(points, up, footprint), up


def _light(scene: Scene, points: Points, normal: Points) -> Values:
    """-> (n,): Lambert's cosine to the sun where no solid is before it, and ambient light"""
    sun = scene.sun[:, None]
    start = points + LIFT * normal
    shade = np.zeros(points.shape[1], bool)
    for solid in scene.solids:
        shade |= np.isfinite(meet(solid, start, np.broadcast_to(sun, points.shape)))
    cosine = np.maximum(dot(normal, sun), 0)
    light: Values = AMBIENT + (1 - AMBIENT) * np.where(shade, 0.0, cosine)
    return light


def _cast(scene: Scene, origin: Points, rays: Points) -> tuple[Values, NDArray[np.int64]]:
    """Return the distance of what each ray meets first, and the number of its surface."""
    floor = np.where(rays[1] < 0, origin[1] / np.maximum(-rays[1], LIFT), np.inf)
    wall = (scene.wall - origin[2]) / rays[2]
    distances = np.stack([wall, floor, *(meet(solid, origin, rays) for solid in scene.solids)])
    first = distances.argmin(0)
    return np.take_along_axis(distances, first[None], 0)[0], first


def _ahead(camera: Camera, rays: Points) -> Values:
    """-> (n,): the part of a ray's length that leads along the camera's axis"""
    cosine, sine = camera.tilt
    part: Values = cosine * rays[2] - sine * rays[1]
    return part


def _mirrored(place: Values, side: int) -> NDArray[np.int64]:
    """Return the texel of a picture that is laid again and again, every other time mirrored."""
    whole = place.astype(np.int64) % (2 * side)
    return np.minimum(whole, 2 * side - 1 - whole)
