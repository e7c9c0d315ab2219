"""Random scenes: one to four objects on a floor before a wall, in textures of photographs, from two viewpoints."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.pipelines.data.photographs import PHOTOS, SPLITS, photograph, tiles
from selfsup.pipelines.data.scenes.geometry import Solid, Turn
from selfsup.pipelines.data.scenes.render import FLOOR, Camera, Geometry, Scene, Texture, trace

SIDE, FOCAL = 96, 105.0  # pixels: 49 degrees
BASELINE = 0.4  # meters between the cameras: at a depth of 5 m, 8 pixels
CATEGORIES = {"box": "box", "sphere": "sphere", "cylinder": "cylinder", "panel": "box"}  # category -> shape
COLORS = {
    "red": (0.9, 0.2, 0.15),
    "green": (0.2, 0.75, 0.25),
    "blue": (0.2, 0.35, 0.95),
    "yellow": (0.95, 0.85, 0.2),
    "purple": (0.65, 0.25, 0.8),
    "white": (0.95, 0.95, 0.95),
}
MOST, TRIES = 4, 8  # objects; places that each is tried at
VISIBLE = 40  # pixels of each object at least
WALL, NEAR, FAR = 9.0, 3.6, 7.4  # meters: the wall, and the middles of the closest and the farthest object
TEXELS, LEVELS = 64, 4
COVER = {"wall": 3.0, "floor": 3.0, "object": 1.2}  # meters that a texture covers before it is mirrored


class Object(NamedTuple):
    """An object of a scene, in words. number: of its instance, from 1."""

    number: int
    category: str
    color: str
    texture: str
    solid: Solid


class Shot(NamedTuple):
    """A scene with its cameras. seen: by the left one, exactly."""

    scene: Scene
    objects: tuple[Object, ...]
    left: Camera
    right: Camera
    seen: Geometry


class Draws:
    """Random numbers of a scene, of which only uniform ones are asked: they are alike in every version of NumPy."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._generator.random())

    def choice(self, options: Sequence[str]) -> str:
        return options[int(len(options) * self._generator.random())]


def shot(split: str, number: int) -> Shot:
    """Return a scene, a pure function of its split and number: the first drawn whose objects can all be seen."""
    draws = Draws(SPLITS.index(split), number)
    while True:
        objects, left = _objects(draws), _camera(draws)
        scene = _scene(draws, split, objects)
        seen = trace(scene, left)
        if all((seen.surface == FLOOR + item.number).sum() >= VISIBLE for item in objects):
            x, y, z = left.position
            return Shot(scene, objects, left, left._replace(position=(x + BASELINE, y, z)), seen)


def _camera(draws: Draws) -> Camera:
    height, aim = draws.between(1.3, 2.8), draws.between(4.5, 6.5)  # it looks at a point 0.6 m above the floor
    down = (height - 0.6) / aim
    length = float(np.sqrt(1 + down * down))
    return Camera((draws.between(-0.4, 0.4), height, 0.0), (1 / length, down / length), FOCAL, SIDE)


def _objects(draws: Draws) -> tuple[Object, ...]:
    """Return objects that do not touch each other; fewer than drawn where some find no room."""
    objects: list[Object] = []
    for _ in range(1 + int(draws.between(0, MOST))):
        tries = (_object(draws, len(objects) + 1) for _ in range(TRIES))
        if item := next((item for item in tries if _is_free(item.solid, objects)), None):
            objects.append(item)
    return tuple(objects)


def _object(draws: Draws, number: int) -> Object:
    category = draws.choice(list(CATEGORIES))
    depth = draws.between(NEAR, FAR)
    across, size = draws.between(-0.36, 0.36) * depth, _size(draws, category)
    solid = Solid(CATEGORIES[category], (across, size[1], depth), size, _turn(draws.between(-0.4, 0.4)))
    return Object(number, category, draws.choice(list(COLORS)), draws.choice(list(PHOTOS)), solid)


def _size(draws: Draws, category: str) -> tuple[float, float, float]:
    """Return half of the extents of an object, in meters."""
    width, height = draws.between(0.5, 1.0), draws.between(0.45, 1.1)
    if category == "sphere":
        return width, width, width
    if category == "cylinder":
        return 0.8 * width, height, 0.8 * width
    if category == "panel":
        return 1.2 * width, height, 0.06
    return 0.8 * width, height, 0.8 * draws.between(0.5, 1.0)


def _turn(half: float) -> Turn:
    """Return cosine and sine of an angle, given the tangent of its half, by what every processor rounds alike."""
    return (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)


def _is_free(solid: Solid, objects: Sequence[Object]) -> bool:
    """Return whether the circle around its footprint is apart from that around any other."""
    return all(_gap(solid, item.solid) > 0 for item in objects)


def _gap(one: Solid, other: Solid) -> float:
    reach = sum(float(np.sqrt(solid.size[0] ** 2 + solid.size[2] ** 2)) for solid in (one, other))
    return float(np.sqrt(sum((one.center[axis] - other.center[axis]) ** 2 for axis in (0, 2)))) - reach


def _scene(draws: Draws, split: str, objects: Sequence[Object]) -> Scene:
    sun = np.array([draws.between(-0.9, 0.9), 1.0, draws.between(-1.0, -0.3)])
    plain = [_texture(draws, split, draws.choice(list(PHOTOS)), COVER[name]) for name in ("wall", "floor")]
    own = [tinted(_texture(draws, split, item.texture, COVER["object"]), COLORS[item.color]) for item in objects]
    return Scene(tuple(item.solid for item in objects), (*plain, *own), WALL, sun / np.sqrt((sun * sun).sum()))


def _texture(draws: Draws, split: str, name: str, cover: float) -> Texture:
    pictures = _pictures(split, name)
    pyramid = [pictures[int(draws.between(0, len(pictures)))]]
    for _ in range(LEVELS - 1):
        pyramid.append(_halved(pyramid[-1]))
    return Texture(tuple(pyramid), cover / TEXELS)


@cache
def _pictures(split: str, name: str) -> list[NDArray[np.float64]]:
    """-> (3, s, s) in [0, 1] of each tile of a photograph that shows something: its middle, as a square"""
    squares = [_square(tile) for tile in tiles(photograph(name), split)]
    lively = [square for square in squares if square.std() >= 0.04]
    return lively or squares


def _square(tile: Image.Image) -> NDArray[np.float64]:
    width, height = tile.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = tile.resize((TEXELS, TEXELS), Image.Resampling.BICUBIC, box=box)
    return np.asarray(small).transpose(2, 0, 1) / 255


def _halved(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, s, s) -> (3, s / 2, s / 2)"""
    rows = picture[:, ::2] + picture[:, 1::2]
    halved: NDArray[np.float64] = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
    return halved


def tinted(texture: Texture, color: tuple[float, float, float]) -> Texture:
    """Return a texture in shades of one color, from two fifths of it to all."""
    red, green, blue = texture.levels[0]
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    low, high = gray.min(), gray.max()
    shade = 0.4 + 0.6 * (gray - low) / max(high - low, 1 / 255)
    pyramid = [np.array(color)[:, None, None] * shade]
    for _ in range(LEVELS - 1):
        pyramid.append(_halved(pyramid[-1]))
    return texture._replace(levels=tuple(pyramid))
