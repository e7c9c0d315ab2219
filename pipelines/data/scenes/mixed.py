"""Rendered scenes, scenes with their depth, and clips in one data set, each kind with classes of its own.

bundled://mixed/train   900 samples, a third of each kind, by turns
bundled://mixed/val     240 others; textures of the two splits share no pixel

    .jpg                a scene; the color of the object that shows most pixels
    .jpg, .depth.png    another one, with its depth; how far its nearest object is, one of DISTANCES
    .mkv                a clip; the camera's motion, see `motions`

A sample is a pure function of its split and number.
"""

import math
from collections.abc import Iterator

from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, png
from selfsup.pipelines.data.scenes import CLASSES as COLORS
from selfsup.pipelines.data.scenes import QUALITY, by_size, motions
from selfsup.pipelines.data.scenes.draw import shot
from selfsup.pipelines.data.scenes.render import render
from selfsup.pipelines.modalities.pixels.coding import jpeg

NUMBER = {"train": 900, "val": 240}
DISTANCES = {"near": 4.2, "middle": 5.1, "far": math.inf}  # meters below which the middle of the nearest object is
CLASSES = [*COLORS, *DISTANCES, *motions.ORDERS]
KINDS = 3


def samples(split: str) -> Iterator[AnnotatedSample]:
    """Yield the samples of a split."""
    return (sample(split, number) for number in range(NUMBER[split]))


def sample(split: str, number: int) -> AnnotatedSample:
    """Return a scene, a scene with depth, or a clip, as members of a shard."""
    kind = number % KINDS
    if kind == KINDS - 1:
        clip = motions.sample(split, number)
        return clip._replace(label=CLASSES.index([*motions.ORDERS][clip.label or 0]))
    scene = shot(split, number)
    image = jpeg(render(scene.scene, scene.left), quality=QUALITY)
    if not kind:
        return AnnotatedSample(f"{number:04d}", {"jpg": image}, CLASSES.index(by_size(scene)[0].color))
    nearest = min(item.solid.center[2] for item in scene.objects)
    distance = next(name for name, most in DISTANCES.items() if nearest < most)
    members = {"jpg": image, "depth.png": png(millimeters(scene.seen.depth))}
    return AnnotatedSample(f"{number:04d}", members, CLASSES.index(distance))
