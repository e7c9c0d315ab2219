"""Rendered scenes: geometry held to marching along rays, cameras to projection, members to each other."""

import io
import json

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from selfsup.pipelines.data import scenes
from selfsup.pipelines.data.annotated import AnnotatedSample
from selfsup.pipelines.data.scenes.draw import CATEGORIES, VISIBLE, Draws, shot
from selfsup.pipelines.data.scenes.geometry import Solid, meet, surface
from selfsup.pipelines.data.scenes.render import Camera, Scene, Texture, render, trace

TURN = (0.8, 0.6)
SOLIDS = [
    Solid("box", (0.3, 0.8, 4.0), (0.5, 0.8, 0.7), TURN),
    Solid("sphere", (-0.2, 0.7, 5.0), (0.7, 0.7, 0.7)),
    Solid("cylinder", (0.1, 0.9, 4.5), (0.6, 0.9, 0.4), TURN),
]
CAMERA = Camera((0.0, 1.5, 0.0), (0.96, 0.28), 20.0, 24)


def is_inside(solid: Solid, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(3, n) -> (n,): by the inequality of each shape"""
    cosine, sine = solid.turn
    matrix = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    x, y, z = (matrix @ (points - np.array(solid.center)[:, None])) / np.array(solid.size)[:, None]
    return {
        "box": np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < 1,
        "sphere": x**2 + y**2 + z**2 < 1,
        "cylinder": (x**2 + z**2 < 1) & (abs(y) < 1),
    }[solid.shape]


@pytest.mark.parametrize("solid", SOLIDS, ids=[solid.shape for solid in SOLIDS])
def test_rays_meet_solids_where_a_march_along_them_first_is_inside(solid: Solid) -> None:
    rays, steps = CAMERA.rays(), np.arange(2, 7, 0.01)
    distance = meet(solid, CAMERA.origin, rays)
    inside = np.stack([is_inside(solid, CAMERA.origin + step * rays) for step in steps])
    marched = np.where(inside.any(0), steps[inside.argmax(0)], np.inf)
    hit = np.isfinite(distance)
    assert 20 < hit.sum() < len(hit)
    assert (hit == np.isfinite(marched)).mean() > 0.99  # rays that graze an edge for less than a step
    both = hit & np.isfinite(marched)
    assert np.abs(distance[both] - marched[both]).max() <= 0.0101
    points = CAMERA.origin + distance[hit] * rays[:, hit]
    own, normal = surface(solid, points)
    assert np.abs(np.linalg.norm(normal, axis=0) - 1).max() < 1e-9
    assert np.abs(np.linalg.norm(own, axis=0) - np.linalg.norm(points.T - solid.center, axis=1)).max() < 1e-9
    cosine, sine = solid.turn
    outwards = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ normal
    assert not is_inside(solid, points + 1e-6 * outwards).any()
    assert is_inside(solid, points - 1e-6 * outwards).all()


def plain(*solids: Solid) -> Scene:
    texture = Texture((np.full((3, 2, 2), 0.8),), 1.0)
    return Scene(solids, (texture,) * (2 + len(solids)), 9.0, np.array([0.6, 0.8, 0.0]))


def test_depth_is_along_the_axis_and_a_shadow_falls_away_from_the_sun() -> None:
    level = Camera((0.0, 1.5, 0.0), (1.0, 0.0), 50.0, 65)
    ball = Solid("sphere", (0.0, 1.5, 4.0), (0.5, 0.5, 0.5))
    seen, image = trace(plain(ball), level), render(plain(ball), level)
    assert seen.depth[32, 32] == 3.5
    assert (seen.depth[seen.surface == 0] == 9).all()
    floor = seen.surface == 1
    rows = np.flatnonzero(floor.any(1))
    assert seen.depth[rows, 0] == pytest.approx(1.5 * 50 / (rows + 0.5 - 32.5), rel=1e-12)
    lit = round(255 * 0.8 * (0.35 + 0.65 * 0.8))
    dark = round(255 * 0.8 * 0.35)
    assert set(np.unique(image[floor])) >= {lit, dark}
    shadow = np.argwhere(floor & (image[..., 0] == dark))
    assert shadow[:, 1].mean() < 26, "the sun is on the right"
    assert shadow[:, 0].mean() == pytest.approx(32.5 + 50 * 1.5 / 4, abs=1), "under the ball"


@pytest.fixture(scope="module")
def members() -> list[AnnotatedSample]:
    return [scenes.sample("val", number) for number in range(12)]


def image(sample: AnnotatedSample, suffix: str) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(sample.members[suffix]))).astype(int)


def test_a_scene_is_a_function_of_its_split_and_number(members: list[AnnotatedSample]) -> None:
    assert scenes.sample("val", 3) == members[3]
    assert scenes.sample("train", 3).members["jpg"] != members[3].members["jpg"] != members[4].members["jpg"]


def test_annotations_agree(members: list[AnnotatedSample]) -> None:
    for sample in members:
        content = json.loads(sample.members["json"])
        inst, seg, depth = (image(sample, f"{name}.png") for name in ("inst", "seg", "depth"))
        assert inst.shape == seg.shape == depth.shape == image(sample, "jpg").shape[:2] == (96, 96)
        assert set(np.unique(inst)) - {0} == {item["instance"] for item in content["objects"]}
        assert set(np.unique(seg[inst == 0])) <= {0, 1}
        pixels = {}
        for item in content["objects"]:
            mask = inst == item["instance"]
            left, top, right, bottom = item["box"]
            assert mask[top:bottom, left:right].sum() == mask.sum() >= VISIBLE
            assert all(edge.any() for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]))
            assert set(seg[mask]) == {scenes.SURFACES.index(item["category"])}
            assert f"a {item['color']} {item['category']}" in content["caption"]
            pixels[int(mask.sum())] = item["color"]
        assert scenes.CLASSES[sample.label or 0] == pixels[max(pixels)]
        assert depth[seg == 0].min() > depth[seg == 1].min() > 1000


def test_pixels_of_one_view_are_found_in_the_other_by_depth_and_cameras(members: list[AnnotatedSample]) -> None:
    for sample in members[:6]:
        cameras = {name: np.array(value) for name, value in json.loads(sample.members["json"])["cameras"].items()}
        depth, other = image(sample, "depth.png") / 1000, image(sample, "right.depth.png") / 1000
        row, column = np.mgrid[:96, :96] + 0.5
        rays = np.linalg.inv(cameras["intrinsics"]) @ np.stack([column, row, np.ones_like(row)]).reshape(3, -1)
        places = np.linalg.inv(cameras["left"]) @ np.r_[rays * depth.ravel(), np.ones((1, depth.size))]
        x, y, z = cameras["intrinsics"] @ (cameras["right"] @ places)[:3]
        inside = (x / z > 0) & (x / z < 96)
        assert np.abs(y / z - row.ravel()).max() < 0.02, "rows are those of the other view"
        pixel = row.ravel()[inside].astype(int), (x / z)[inside].astype(int)
        there = other[pixel]
        same = np.abs(there - z[inside]) < 0.1
        assert same.mean() > 0.9  # the others are hidden from there, or at an edge
        one, two = image(sample, "jpg").reshape(-1, 3)[inside], image(sample, "right.jpg")
        colors = np.abs(one - two[pixel]).mean(1)
        assert np.median(colors[same]) < 12
        shift = image(sample, "disparity.png").ravel() / 256
        expected = (column.ravel() - x / z).reshape(-1)
        assert np.abs(shift - expected)[shift > 0].max() < 0.02
        assert (same == (shift[inside] > 0)).mean() > 0.97  # by another tolerance
        assert (shift[~inside] == 0).all()


def test_a_caption_says_how_the_two_largest_lie() -> None:
    for number in range(40):
        scene = shot("train", number)
        words = scenes.caption(scene)
        if len(scene.objects) == 2 and " left of " in words:
            where = {f"a {item.color} {item.category}": item.solid.center[0] for item in scene.objects}
            one, other = (where[part] for part in words.split(" left of "))
            assert one < other or len(where) == 1


def test_draws_are_uniform_and_counted_by_seed() -> None:
    draws = Draws(1, 2)
    values = [draws.between(2, 4) for _ in range(2000)]
    assert 2 <= min(values) < max(values) < 4
    assert np.mean(values) == pytest.approx(3, abs=0.05)
    assert {draws.choice(list(CATEGORIES)) for _ in range(100)} == set(CATEGORIES)
    assert Draws(1, 3).between(2, 4) != values[0]
