"""Rendered scenes with ground truth that is right by construction: boxes, spheres, cylinders and panels on a floor.

They are textured with photographs that scikit-image and scikit-learn ship, and no photographs themselves: a table of
them shows whether a protocol works, and how objectives differ on simple geometry, not what they do on real images.

bundled://scenes/train  1000 scenes of 96x96 pixels with one to four objects
bundled://scenes/val     250 others; textures of the two splits share no pixel
bundled://miscaptioned   the same scenes, each with the caption of another one of its split: what learns from these
                         learns no words, and any evaluation that asks by words stays at chance
bundled://tagged         the same scenes, each with .tags.json: the colors of all its objects, and their shapes, TAGS

    .jpg, .cls          the scene; the color of the object that shows most pixels
    .seg.png            the class of each pixel: one of SURFACES
    .inst.png           the object that each pixel belongs to, from 1; 0: floor and wall
    .depth.png          millimeters along the camera's axis
    .right.jpg          the scene from 0.4 m farther to the right, by a camera with the same axes
    .right.depth.png    its depth
    .disparity.png      how many pixels, times 256, farther to the left a point is there; 0 where something hides it
    .json               caption; objects: instance, category, color, texture, box in pixels (left, top, right, bottom),
                        center and size in meters; cameras: intrinsics, and the pose of each, from places in the scene
                        to places before the camera: x right, y down, z ahead

A scene is a pure function of its split and number; `motions` films them by another list of cameras.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, png
from selfsup.pipelines.data.annotation import DISPARITY
from selfsup.pipelines.data.scenes.draw import BASELINE, CATEGORIES, COLORS, Object, Shot, shot
from selfsup.pipelines.data.scenes.render import FLOOR, Camera, render, trace
from selfsup.pipelines.modalities.pixels.coding import jpeg

NUMBER = {"train": 1000, "val": 250}
CLASSES = sorted(COLORS)
TAGS = (*CLASSES, *sorted(CATEGORIES))
SURFACES = ("wall", "floor", *CATEGORIES)
QUALITY = 92  # of JPEGs
SAME = 0.03  # share of its depth by which a point's differs at most in the pixel of another view


def samples(split: str, *, miscaptioned: bool = False, tagged: bool = False) -> Iterator[AnnotatedSample]:
    """Yield the scenes of a split. miscaptioned: each with the caption of the one that is half a split away.

    tagged: each with its tags.
    """
    size = NUMBER[split]
    others = ((number + size // 2) % size if miscaptioned else None for number in range(size))
    made = (sample(split, number, other) for number, other in enumerate(others))
    return map(_tagged, made) if tagged else made


def sample(split: str, number: int, described: int | None = None) -> AnnotatedSample:
    """Return a scene as members of a shard. described: the scene that its caption is of, by number; None: its own."""
    scene = shot(split, number)
    words = caption(scene if described is None else shot(split, described))
    instance = np.where(scene.seen.surface > FLOOR, scene.seen.surface - FLOOR, 0).astype(np.uint8)
    objects = [_object(item, instance == item.number) for item in scene.objects]
    other = trace(scene.scene, scene.right)
    largest = max(objects, key=lambda item: int((instance == item["instance"]).sum()))
    members = {
        "jpg": jpeg(render(scene.scene, scene.left), quality=QUALITY),
        "seg.png": png(_classes(scene)[scene.seen.surface]),
        "inst.png": png(instance),
        "depth.png": png(millimeters(scene.seen.depth)),
        "right.jpg": jpeg(render(scene.scene, scene.right), quality=QUALITY),
        "right.depth.png": png(millimeters(other.depth)),
        "disparity.png": png(_disparity(scene.left, scene.seen.depth, other.depth)),
        "json": json.dumps({"caption": words, "objects": objects, "cameras": _cameras(scene)}).encode(),
    }
    return AnnotatedSample(f"{number:04d}", members, CLASSES.index(largest["color"]))


def _tagged(scene: AnnotatedSample) -> AnnotatedSample:
    objects = json.loads(scene.members["json"])["objects"]
    tags = sorted({TAGS.index(item[what]) for item in objects for what in ("color", "category")})
    return scene._replace(members={**scene.members, "tags.json": json.dumps(tags).encode()})


def caption(scene: Shot) -> str:
    """Return such as "a red sphere left of a blue box, and a white panel": objects by the pixels that they show."""
    first, *rest = by_size(scene)
    if not rest:
        return _words(first)
    others = [f"and {_words(item)}" for item in rest[1:]]
    return ", ".join([f"{_words(first)} {_relation(first, rest[0])} {_words(rest[0])}", *others])


def by_size(scene: Shot) -> list[Object]:
    """Return the objects by the pixels that they show, the largest first."""
    pixels = np.bincount(scene.seen.surface.ravel(), minlength=FLOOR + 1 + len(scene.objects))[FLOOR + 1 :]
    return [scene.objects[place] for place in np.argsort(-pixels, kind="stable").tolist()]


def _words(item: Object) -> str:
    return f"a {item.color} {item.category}"


def _relation(one: Object, other: Object) -> str:
    """Return where one is, as the camera sees it, by the longer of the distances across and along its axis."""
    across, along = (one.solid.center[axis] - other.solid.center[axis] for axis in (0, 2))
    if abs(across) >= abs(along):
        return "left of" if across < 0 else "right of"
    return "in front of" if along < 0 else "behind"


def _object(item: Object, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return {
        "instance": item.number,
        "category": item.category,
        "color": item.color,
        "texture": item.texture,
        "box": [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1],
        "center": item.solid.center,
        "size": [2 * side for side in item.solid.size],
    }


def _classes(scene: Shot) -> NDArray[np.uint8]:
    """-> (surfaces,): the class of each"""
    return np.array(
        [SURFACES.index(name) for name in ("wall", "floor", *(item.category for item in scene.objects))], np.uint8
    )


def _disparity(camera: Camera, depth: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.uint16]:
    """(H, W) twice, meters of both views -> (H, W): 256ths of a pixel; 0 where the right view hides a point"""
    shift = BASELINE * camera.focal / depth
    row, column = np.indices(depth.shape)
    place = np.floor(column + 0.5 - shift).astype(int)
    there = other[row, np.maximum(place, 0)]
    is_seen = (place >= 0) & (np.abs(there - depth) < SAME * depth)
    return np.where(is_seen, np.round(DISPARITY * shift), 0).astype(np.uint16)


def _cameras(scene: Shot) -> dict[str, Any]:
    return {"intrinsics": scene.left.intrinsics, "left": scene.left.pose, "right": scene.right.pose}
