"""The sampled solids: that a cloud lies on its solid, is seen from one side, and is a function of its number."""

import io

import numpy as np
import pytest
import trimesh

from selfsup.pipelines.data import bundled, shards, solids
from selfsup.pipelines.data.manifest import load

CORNERS = {"box": 8, "prism": 6, "pyramid": 5}
CAPS = {"box": 2, "prism": 2, "pyramid": 1}  # whose middles are vertices, too


def mesh(title: str) -> trimesh.Trimesh:
    triangles = solids.surface(title, np.random.default_rng(0))
    whole = trimesh.Trimesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3))
    whole.merge_vertices(digits_vertex=6)
    whole.update_faces(whole.nondegenerate_faces())
    return whole


@pytest.mark.parametrize("title", [*solids.SOLIDS])
def test_a_class_is_the_shape_of_a_solid(title: str) -> None:
    made = mesh(title)
    assert made.is_watertight == (title != "bowl"), "a bowl is open"
    assert made.euler_number == {"torus": 0, "bowl": 1}.get(title, 2)
    half = np.abs(made.vertices).max(0)
    if title == "ellipsoid":
        np.testing.assert_allclose(np.linalg.norm(made.vertices / half, axis=1), 1, atol=0.01)
    convex = title not in ("torus", "bowl")
    assert (made.convex_hull.area == pytest.approx(made.area, rel=1e-3)) == convex
    if title in CORNERS:
        assert len(made.vertices) == CORNERS[title] + CAPS[title]


def test_points_are_uniform_over_a_surface() -> None:
    """Of a long box: by the areas of its faces."""
    triangles = solids.turned(*np.array(solids.PILLAR).T, 4) * [1, 2, 3]
    points = solids.on(triangles, 40000, np.random.default_rng(0))
    on_cap, on_side = abs(points[:, 2]) > 3 - 1e-9, abs(abs(points[:, 0]) + abs(points[:, 1]) / 2 - 1) < 1e-9
    assert (on_cap | on_side).all()
    caps = 2 * 2 * 1 * 2  # of a square with corners on the axes, stretched by 1 and 2
    sides = 4 * np.sqrt(1**2 + 2**2) * 6
    assert on_cap.mean() == pytest.approx(caps / (caps + sides), abs=0.01)


def test_a_camera_sees_one_side() -> None:
    ball = np.random.default_rng(0).normal(size=(20000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    seen = solids.in_sight(ball)
    assert seen[ball[:, 2] > 0.6].all(), "it is flat enough there"
    assert seen[ball[:, 2] < -0.2].mean() < 0.02
    flat = np.concatenate([np.random.default_rng(0).random((500, 3)) * [1, 1, 0] + [0, 0, z] for z in (0, -0.1, -0.3)])
    assert solids.in_sight(flat).sum() == pytest.approx(1000, abs=60)


def test_clouds_are_a_function_of_split_and_number() -> None:
    one, two = (next(solids.samples("train")) for _ in range(2))
    assert one == two
    assert next(solids.samples("val")) != one
    title, data = one
    cloud = np.load(io.BytesIO(data))
    assert (title, cloud.shape, cloud.dtype) == ("bowl", (solids.POINTS, 3), np.float32)


def test_the_set_is_packed_with_equally_many_of_each_class(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solids, "NUMBER", {"train": 3, "val": 1})
    root = bundled.build("solids", tmp_path)
    for split, number in solids.NUMBER.items():
        packed = load(str(root / split))
        assert packed.num_samples == packed.num_labelled == 8 * number
        assert packed.classes == tuple(solids.SOLIDS)
        assert shards.check(packed.home) == []
