"""Clips of rendered scenes whose label is how the camera moves: to the left, to the right, or there and back.

bundled://motions/train    600 clips of 8 frames of 48x48 pixels, 8 a second, 150 of each of four motions
bundled://motions/val      200 others; textures of the two splits share no pixel
bundled://shuffled/train   the same clips, the frames of each in a random order; its val likewise
bundled://still/train      the same clips, of one frame each, at random; its val likewise

All motions visit the same eight places, each once, so that only the order of frames tells them apart: of shuffled ones
nothing does, and any evaluation stays at chance, 25 %. The scene repeats itself every 6 m, as its textures do, and the
camera is anywhere in it: a single frame does not tell where on its way it is. A clip is a pure function of its split
and number.
"""

from collections.abc import Iterator

from selfsup.pipelines.data.annotated import AnnotatedSample
from selfsup.pipelines.data.photographs import SPLITS
from selfsup.pipelines.data.scenes.draw import COVER, FOCAL, SIDE, Draws, shot
from selfsup.pipelines.data.scenes.film import film
from selfsup.pipelines.data.scenes.geometry import Solid
from selfsup.pipelines.data.scenes.render import Scene, render
from selfsup.pipelines.modalities.pixels.coding import jpeg

NUMBER = {"train": 600, "val": 200}
PIXELS, RATE, QUALITY = 48, 8, 92
STEP = 0.2  # meters between neighboring places of the camera: at a depth of 5 m, 2 pixels
ORDERS = {  # of places, from left to right
    "left": (7, 6, 5, 4, 3, 2, 1, 0),
    "right": (0, 1, 2, 3, 4, 5, 6, 7),
    "left and back": (7, 5, 3, 1, 0, 2, 4, 6),
    "right and back": (0, 2, 4, 6, 7, 5, 3, 1),
}
PLACES = 8
PERIOD = 2 * COVER["wall"]  # meters, of the wall's and the floor's textures, which are mirrored


def samples(split: str, *, order: str = "own") -> Iterator[AnnotatedSample]:
    """Yield the clips of a split. order: of their frames: own, shuffled, or still, of one alone."""
    return (sample(split, number, order=order) for number in range(NUMBER[split]))


def sample(split: str, number: int, *, order: str = "own") -> AnnotatedSample:
    """Return a clip as a member of a shard. order: as of `samples`."""
    label, frames, drawn = number % len(ORDERS), _frames(split, number), _shuffled(split, number)
    places = {"own": [*ORDERS.values()][label], "shuffled": drawn, "still": drawn[:1] * PLACES}[order]
    return AnnotatedSample(f"{number:04d}", {"mkv": film([frames[place] for place in places], RATE, PIXELS)}, label)


def _shuffled(split: str, number: int) -> list[int]:
    draws = Draws(SPLITS.index(split), number, 1)
    return [place for _, place in sorted((draws.between(0, 1), place) for place in range(PLACES))]


def _frames(split: str, number: int) -> list[bytes]:
    """Return what the camera sees at each place, from left to right, as JPEGs."""
    one = shot(split, number)
    scene, camera = _repeated(one.scene), one.left._replace(size=PIXELS, focal=FOCAL * PIXELS / SIDE)
    middle, (_, y, z) = Draws(SPLITS.index(split), number, 2).between(-PERIOD / 2, PERIOD / 2), camera.position
    places = [(middle + STEP * (place - (PLACES - 1) / 2), y, z) for place in range(PLACES)]
    return [jpeg(render(scene, camera._replace(position=place)), quality=QUALITY) for place in places]


def _repeated(scene: Scene) -> Scene:
    """Return a scene with its solids once more on both sides, as far as a camera sees."""
    ways, (wall, floor, *own) = (-PERIOD, 0.0, PERIOD), scene.textures
    moved = (_moved(solid, way) for way in ways for solid in scene.solids)
    return scene._replace(solids=tuple(moved), textures=(wall, floor, *own * len(ways)))


def _moved(solid: Solid, way: float) -> Solid:
    x, y, z = solid.center
    return solid._replace(center=(x + way, y, z))
